// Numbers as text.

/** Format a time: 0:01.2, 12:34.5, 1:02:03.4. */
export function clock(seconds) {
  const tenths = Math.max(0, Math.round((Number.isFinite(seconds) ? seconds : 0) * 10));
  const [hours, minutes] = [Math.floor(tenths / 36000), Math.floor(tenths / 600) % 60];
  const rest = ((tenths % 600) / 10).toFixed(1).padStart(4, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

/** Format a probability: 97.3 %. Scores that are no finite numbers arrive as null. */
export const percent = (share) => (share === null || share === undefined ? "no number" : `${(100 * share).toFixed(1)} %`);

/** Format a duration of a stage: 840 µs is 0.8 ms, 1234 ms is 1.23 s. */
export function milliseconds(value) {
  if (value >= 1000) return `${(value / 1000).toFixed(2)} s`;
  return value >= 10 ? `${Math.round(value)} ms` : `${value.toFixed(1)} ms`;
}

/** Format a number of bytes in units of 1024. */
export function bytes(count) {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) [count, unit] = [count / 1024, unit + 1];
  return `${unit && count < 10 ? count.toFixed(1).replace(/\.0$/, "") : Math.round(count)} ${units[unit]}`;
}

/** Format a limit of time: 45 s, 10 min, 2 h. */
export function span(seconds) {
  if (seconds < 120) return `${Math.round(seconds)} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${+(seconds / 3600).toFixed(1)} h`;
}

/** Format a number with at most `digits` significant digits. */
export function number(value, digits = 4) {
  if (!Number.isFinite(value)) return "–";
  return Math.abs(value) < 1e-4 && value ? value.toExponential(digits - 1) : `${+value.toPrecision(digits)}`;
}

/** Format a share of an axis: 50 %. */
export const share = (value) => `${+(100 * value).toFixed(1)} %`;
