// The sliding windows of a video: which one belongs to a time, which classes they show.

/** A list of windows {start, end, top: [{class, probability}]} in the order of their starts. */
export class Windows {
  constructor(list = []) {
    this.list = list;
  }

  /** Add windows; the interface sends them in their order. */
  add(list) {
    this.list.push(...list);
  }

  /** The window whose centre is nearest to a time; null if no window is within one stride of it. */
  at(seconds) {
    const list = this.list;
    if (!list.length) return null;
    let [low, high] = [0, list.length - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (centre(list[middle]) < seconds) low = middle + 1;
      else high = middle;
    }
    const before = list[Math.max(0, low - 1)];
    const best = seconds - centre(before) < centre(list[low]) - seconds ? before : list[low];
    return seconds >= best.start - this.stride() && seconds <= best.end + this.stride() ? best : null;
  }

  /** Median distance of neighbouring starts, in seconds. */
  stride() {
    const steps = this.list.slice(1, 40).map((window, i) => window.start - this.list[i].start);
    return steps.sort((a, b) => a - b)[steps.length >> 1] || 0.5;
  }

  /**
   * The stretch of time that each window stands for: its borders lie midway between the centres of neighbours.
   * The first and the last window stand for the ends of the video too; parts that cannot be read stay empty.
   */
  stretches(duration) {
    const { list } = this;
    const reach = this.stride();
    return list.map((window, i) => {
      const [own, previous, next] = [centre(window), list[i - 1], list[i + 1]];
      const isNear = (other) => other && Math.abs(centre(other) - own) < 2.5 * reach;
      const from = isNear(previous) ? (centre(previous) + own) / 2 : previous ? own - reach / 2 : 0;
      const to = isNear(next) ? (centre(next) + own) / 2 : next ? own + reach / 2 : Math.min(duration, window.end);
      return { from, to, window };
    });
  }

  /** Names of the classes that are the most probable one of some window, most frequent first. */
  classes() {
    const counts = new Map();
    for (const { top } of this.list) {
      if (top.length) counts.set(top[0].class, (counts.get(top[0].class) || 0) + 1);
    }
    return [...counts].sort((a, b) => b[1] - a[1]).map(([name]) => name);
  }
}

const centre = (window) => (window.start + window.end) / 2;
