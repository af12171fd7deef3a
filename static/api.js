/* api.js: the public HTTP interface, with the visitor's key. The key lives in sessionStorage: it ends
 * with the tab, and no other site or tab sees it. */

const KEY = 'mp2.key';

export class ApiError extends Error {
  constructor(status, message, problems) {
    super(message);
    this.status = status;
    this.problems = problems;
  }
}

export function getKey() {
  return sessionStorage.getItem(KEY);
}

export function setKey(key) {
  if (key) {
    sessionStorage.setItem(KEY, key);
  } else {
    sessionStorage.removeItem(KEY);
  }
}

function explain(status, body, statusText) {
  const error = body && body.error;
  const text = (body && body.detail) || (error && (error.message || error)) || statusText || 'no answer';
  return new ApiError(status, `${text} (${status})`, body && body.errors);
}

/* The answer's JSON. Throws ApiError; status 0: the server could not be reached. */
export async function call(method, path, body) {
  const headers = { Accept: 'application/json' };
  const key = getKey();
  if (key) {
    headers.Authorization = `Bearer ${key}`;
  }
  let send = body;
  if (body !== undefined && !(body instanceof FormData)) {
    headers['Content-Type'] = 'application/json';
    send = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: send, cache: 'no-store', credentials: 'omit', redirect: 'error' });
  } catch (e) {
    throw new ApiError(0, e.message);
  }
  const text = await answer.text();
  let parsed = null;
  try {
    parsed = text ? JSON.parse(text) : null;
  } catch { /* not JSON: the status says enough */ }
  if (!answer.ok) {
    throw explain(answer.status, parsed, answer.statusText);
  }
  return parsed;
}

export const get = (path) => call('GET', path);
export const post = (path, body) => call('POST', path, body);

export function query(values) {
  const given = Object.entries(values).filter(([, value]) => value !== undefined && value !== null && value !== '');
  return given.length ? `?${new URLSearchParams(given)}` : '';
}

export const taskPath = (name) => `/v1/tasks/${encodeURIComponent(name)}`;

/* The samples of /metrics: [{name, labels: {…}, value}]. */
export async function metrics() {
  const answer = await fetch('/metrics', { cache: 'no-store', credentials: 'omit' });
  if (!answer.ok) {
    throw new ApiError(answer.status, answer.statusText);
  }
  const samples = [];
  for (const line of (await answer.text()).split('\n')) {
    const hit = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (hit) {
      const labels = {};
      for (const [, name, value] of (hit[2] || '').matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) {
        labels[name] = value;
      }
      samples.push({ name: hit[1], labels, value: hit[3] === '+Inf' ? Infinity : Number(hit[3]) });
    }
  }
  return samples;
}
