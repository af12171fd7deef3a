/* api.js: the public HTTP interface, with the visitor's key.
 *
 * The key lives in sessionStorage: it ends with the tab, and no other site or tab sees it. Whether the
 * server can be reached, and whether it still knows the key, is told to the page by two events of
 * `document`: "mp2:reach" (detail: true or false) and "mp2:refused". Every answer is one of JSON,
 * an ApiError, or a stream of events (follow).
 */
import { t } from './strings.js';

const KEY = 'mp2.key';

class ApiError extends Error {
  constructor(status, message, problems) {
    super(message);
    this.status = status;
    this.problems = problems || [];
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

function tell(name, detail) {
  document.dispatchEvent(new CustomEvent(name, { detail }));
}

/* The native shape (detail, errors) or OpenAI's (error.message). */
function explain(answer, body) {
  const error = body && body.error;
  const text = (body && body.detail) || (error && (error.message || error)) || answer.statusText;
  return new ApiError(answer.status, `${text || t('no_reply')} (${answer.status})`,
    (body && body.errors) || (error && error.errors));
}

function parsed(text) {
  try {
    return text ? JSON.parse(text) : null;
  } catch {
    return null; /* not JSON: the status says enough */
  }
}

/* fetch with the key. Throws ApiError with status 0 when the server cannot be reached. */
async function send(path, { headers, ...options }) {
  const key = getKey();
  const all = { ...headers, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  try {
    const answer = await fetch(path, { ...options, headers: all, cache: 'no-store',
      credentials: 'omit', redirect: 'error' });
    tell('mp2:reach', true);
    return answer;
  } catch (e) {
    if (e.name === 'AbortError') {
      throw e;
    }
    tell('mp2:reach', false);
    throw new ApiError(0, t('unreachable'));
  }
}

async function failed(answer) {
  const error = explain(answer, parsed(await answer.text()));
  if (answer.status === 401 && getKey()) {
    tell('mp2:refused', error);
  }
  return error;
}

/* The answer's JSON, or null. */
export async function call(method, path, body) {
  const headers = { Accept: 'application/json' };
  let bytes = body;
  if (body !== undefined && !(body instanceof FormData)) {
    headers['Content-Type'] = 'application/json';
    bytes = JSON.stringify(body);
  }
  const answer = await send(path, { method, headers, body: bytes });
  if (!answer.ok) {
    throw await failed(answer);
  }
  return parsed(await answer.text());
}

export const get = (path) => call('GET', path);
export const post = (path, body) => call('POST', path, body);

/* What a server may not have, or not for this key: null instead of an error. */
export async function maybe(promise) {
  try {
    return await promise;
  } catch (e) {
    if ([403, 404, 405, 501].includes(e.status)) {
      return null;
    }
    throw e;
  }
}

export function query(values) {
  const given = Object.entries(values)
    .filter(([, value]) => value !== undefined && value !== null && value !== '');
  return given.length ? `?${new URLSearchParams(given)}` : '';
}

export const taskPath = (name) => `/v1/tasks/${encodeURIComponent(name)}`;
export const jobPath = (id) => `/v1/fine_tuning/jobs/${encodeURIComponent(id)}`;
export const tenantPath = (name) => `/v1/admin/tenants/${encodeURIComponent(name)}`;

/* All pages of a list, at most `pages` of a hundred. */
export async function all(path, pages = 10) {
  const rows = [];
  let after = null;
  for (let page = 0; page < pages; page++) {
    const list = await get(`${path}${query({ limit: 100, after })}`);
    rows.push(...list.data);
    if (!list.has_more) {
      break;
    }
    after = list.last_id;
  }
  return rows;
}

/* ---- event streams ---- */

/* One event of the stream's text, or null for a comment. */
function eventOf(block) {
  const event = { id: null, data: null };
  for (const line of block.split('\n')) {
    const at = line.indexOf(':');
    const name = line.slice(0, at), value = line.slice(at + 1).replace(/^ /, '');
    if (name === 'id') {
      event.id = value;
    } else if (name === 'data') {
      event.data = event.data === null ? value : `${event.data}\n${value}`;
    }
  }
  return event.data === null ? null : event;
}

/* Reads one connection to its end; true when the server said [DONE]. */
async function readStream(body, state, take) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) {
      return false;
    }
    text += value.replaceAll('\r', '');
    for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
      const event = eventOf(text.slice(0, end));
      text = text.slice(end + 2);
      if (event && event.data === '[DONE]') {
        return true;
      }
      if (event) {
        state.last = event.id === null ? state.last : event.id;
        take(parsed(event.data));
      }
    }
  }
}

const pause = (ms, signal) => new Promise((go) => {
  const timer = setTimeout(go, ms);
  signal.addEventListener('abort', () => { clearTimeout(timer); go(); }, { once: true });
});

/* Follows a stream of events over fetch (EventSource cannot send a key) until [DONE] or `signal`; a
 * broken connection is taken up again after the last event that came. True: the stream was whole.
 * False: this server does not stream here. */
export async function follow(path, signal, take) {
  const state = { last: null };
  let wait = 250;
  while (!signal.aborted) {
    try {
      const headers = { Accept: 'text/event-stream',
        ...(state.last === null ? {} : { 'Last-Event-ID': state.last }) };
      const answer = await send(path, { method: 'GET', headers, signal });
      const type = answer.headers.get('Content-Type') || '';
      if (!answer.ok || !type.startsWith('text/event-stream')) {
        if (answer.status !== 503 && answer.status !== 429) {
          return false;
        }
      } else {
        wait = 250;
        if (await readStream(answer.body, state, take)) {
          return true;
        }
      }
    } catch (e) {
      if (signal.aborted) {
        return true;
      }
    }
    await pause(wait, signal);
    wait = Math.min(wait * 2, 4000);
  }
  return true;
}

/* ---- metrics ---- */

function sampleOf(line) {
  const hit = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/.exec(line);
  if (!hit) {
    return null;
  }
  const labels = {};
  for (const [, name, value] of (hit[2] || '').matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)) {
    labels[name] = value;
  }
  return { name: hit[1], labels, value: hit[3] === '+Inf' ? Infinity : Number(hit[3]) };
}

/* The samples of /metrics: [{name, labels: {…}, value}]. */
export async function metrics() {
  const answer = await send('/metrics', { method: 'GET' });
  if (!answer.ok) {
    throw await failed(answer);
  }
  return (await answer.text()).split('\n').map(sampleOf).filter((sample) => sample !== null);
}
