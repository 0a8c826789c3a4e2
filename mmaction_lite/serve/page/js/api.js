// Requests to the REST interface, which has the origin and the path prefix of the page.

import { askForToken, readToken } from "./token.js";

const MOST_WAITS = 4;
const LONGEST_WAIT_SECONDS = 30;

/** An answer that is a problem (RFC 9457), or no answer at all (status 0). */
export class Problem extends Error {
  constructor(status, body, retryAfterSeconds = 0) {
    super(body?.detail || body?.title || `The server answered with status ${status}.`);
    this.status = status;
    this.title = body?.title || (status ? `Error ${status}` : "No answer");
    this.advice = body?.advice || "";
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

const SILENT = { title: "The server does not answer", advice: "Check that it still runs, then try again." };

export const address = (path) => new URL(path.replace(/^\//, ""), document.baseURI).href;

function headers() {
  const token = readToken();
  return token ? { Authorization: `Bearer ${token}` } : {};
}

/** Send a request again after a token was entered, or after the wait that a busy server asks for. */
async function persistently(send, { signal, onWait } = {}) {
  for (let waits = 0; ; ) {
    try {
      return await send();
    } catch (problem) {
      if (problem.status === 401 && (await askForToken())) continue;
      if (problem.status !== 429 || ++waits > MOST_WAITS) throw problem;
      const seconds = Math.min(LONGEST_WAIT_SECONDS, problem.retryAfterSeconds || 1);
      onWait?.(seconds);
      await pause(seconds, signal);
    }
  }
}

/** Wait some seconds; an abort ends the wait with an AbortError. */
export function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });
}

/** Request a path; return the response, or throw a Problem. */
export function request(path, options = {}) {
  return persistently(async () => {
    let response;
    try {
      response = await fetch(address(path), { ...options, headers: { ...options.headers, ...headers() } });
    } catch (error) {
      throw error.name === "AbortError" ? error : new Problem(0, SILENT);
    }
    if (response.ok) return response;
    throw new Problem(response.status, await response.json().catch(() => null), retryAfter(response.headers));
  }, options);
}

const retryAfter = (fields) => Number(fields.get("Retry-After")) || 0;

/** Request JSON. */
export const get = async (path, options) => (await request(path, options)).json();

/** Request a file, as a Blob. A link or a <video> cannot send the token. */
export const getBlob = async (path, options) => (await request(path, options)).blob();

/**
 * Post a form and return the JSON answer. XMLHttpRequest, since fetch does not report the progress of an upload.
 * @param {{signal?: AbortSignal, onUpload?: (share: number) => void, onWait?: (seconds: number) => void}} options
 */
export function post(path, form, options = {}) {
  return persistently(() => postOnce(path, form, options), options);
}

function postOnce(path, form, { signal, onUpload }) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const xhr = new XMLHttpRequest();
    xhr.open("POST", address(path));
    xhr.responseType = "json";
    for (const [name, value] of Object.entries(headers())) xhr.setRequestHeader(name, value);
    xhr.upload.onprogress = (event) => event.lengthComputable && onUpload?.(event.loaded / event.total);
    xhr.onload = () => {
      if (xhr.status < 300) return resolve(xhr.response);
      reject(new Problem(xhr.status, xhr.response, Number(xhr.getResponseHeader("Retry-After")) || 0));
    };
    xhr.onerror = () => reject(new Problem(0, SILENT));
    xhr.onabort = () => reject(signal.reason);
    signal?.addEventListener("abort", () => xhr.abort(), { once: true });
    xhr.send(form);
  });
}

/**
 * Yield server-sent events as {event, data}. fetch, since EventSource cannot send the token.
 * The stream ends with the connection.
 */
export async function* events(path, { signal } = {}) {
  const response = await request(path, { signal, headers: { Accept: "text/event-stream" } });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text = (text + value).replaceAll("\r\n", "\n");
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const event = parseEvent(block);
      if (event) yield event;
    }
  }
}

function parseEvent(block) {
  let event = "message";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) event = line.slice(6).trim();
    if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
  }
  return data.length ? { event, data: JSON.parse(data.join("\n")) } : null; // comments keep the connection open
}
