/* dom.js: making elements. Data only ever becomes text nodes and attribute values; no markup is
 * parsed. What a page is built of: fields, cards, tables, badges, and the states between them
 * (loading, empty, failed).
 */
import { t, language } from './strings.js';

const kept = (children) => children.flat(Infinity)
  .filter((child) => child !== null && child !== undefined && child !== false);

/* h('p', {class: 'hint', onclick: f}, 'text', element): attributes by name, listeners by on…. A class
 * alone: h('p', 'hint', 'text'). */
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(typeof props === 'string' ? { class: props } : props || {})) {
    if (name.startsWith('on')) {
      element.addEventListener(name.slice(2), value);
    } else if (value === true) {
      element.setAttribute(name, '');
    } else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value);
    }
  }
  element.append(...kept(children));
  return element;
}

export function fill(parent, ...children) {
  parent.replaceChildren(...kept(children));
  return parent;
}

let labels = 0;

/* A control with its label; an explanation below when given. */
export function field(text, control, hint) {
  control.id = control.id || `field-${++labels}`;
  const parts = [h('label', { for: control.id }, text), control];
  if (hint) {
    const id = `${control.id}-hint`;
    control.setAttribute('aria-describedby', id);
    parts.push(h('p', { class: 'hint', id }, hint));
  }
  return h('div', 'field', parts);
}

export function input(props) {
  return h('input', { autocomplete: 'off', spellcheck: 'false', ...props });
}

export const hash = (page, name) => `#/${page}/${encodeURIComponent(name)}`;

export const link = (page, name, text = name, props = {}) => h('a', { href: hash(page, name), ...props }, text);

export function select(options, chosen, props) {
  return h('select', props, options.map(([value, text]) =>
    h('option', { value, selected: value === chosen }, text)));
}

export function check(text, checked) {
  const box = h('input', { type: 'checkbox', checked });
  return { box, label: h('label', 'check', box, text) };
}

export function button(text, onclick, props) {
  return h('button', { type: 'button', class: 'plain', onclick, ...props }, text);
}

/* A small button in a row of a table, named by what it does and to which. */
export const rowButton = (name, of, onclick, kind = 'plain') =>
  button(t(name), onclick, { class: `${kind} small`, 'aria-label': `${t(name)} ${of}` });

/* What changes under the reader, read out. */
export const spoken = (...children) => h('div', { 'aria-live': 'polite' }, children);

/* Runs `work` with the button out of use, and puts what goes wrong into `place`. */
export async function busy(control, place, work) {
  control.disabled = true;
  control.setAttribute('aria-busy', 'true');
  try {
    fill(place);
    await work();
  } catch (e) {
    fill(place, fault(e));
  } finally {
    control.disabled = false;
    control.removeAttribute('aria-busy');
  }
}

/* A form whose one button runs `work`. `parts` come before the button, `after` beside it. */
export function form(parts, text, work, { after, ...props } = {}) {
  const place = h('div');
  const go = h('button', {}, text);
  const submit = (event) => {
    event.preventDefault();
    busy(go, place, work);
  };
  return h('form', { onsubmit: submit, ...props }, parts, place, h('div', 'row', go, after));
}

/* A button that opens files: take(text, name). */
export function fileButton(text, accept, take, props) {
  const id = `file-${++labels}`;
  const control = h('input', { type: 'file', id, accept });
  control.addEventListener('change', async () => {
    const [chosen] = control.files;
    if (chosen) {
      await take(await chosen.text(), chosen.name);
      control.value = '';
    }
  });
  return h('span', {}, control, h('label', { for: id, class: 'button plain', ...props }, text));
}

export function card(title, ...children) {
  return h('section', 'card', title ? h('h2', {}, title) : null, children);
}

/* A card whose heading has something at its right. */
export function headed(title, right, ...children) {
  return h('section', 'card', h('div', 'head', h('h2', {}, title), right), children);
}

/* The top of a page: its one h1, a line above, buttons at the right. */
export function heading(title, { crumb, beside, actions } = {}) {
  return kept([crumb ? h('a', { class: 'crumb', href: crumb[0] }, `← ${crumb[1]}`) : null,
    h('div', 'top', h('h1', { tabindex: '-1' }, title), beside,
      actions ? h('div', 'row', actions) : null)]);
}

/* heads: texts, or [text, class]; cells under a head get its class. An empty head is for actions. */
export function grid(heads, rows, caption) {
  const columns = heads.map((head) => (Array.isArray(head) ? head : [head, null]));
  return h('table', { 'aria-label': caption }, h('thead', {}, h('tr', {}, columns.map(([text, kind]) =>
    h(text ? 'th' : 'td', { scope: text ? 'col' : null, class: kind }, text)))),
  h('tbody', {}, rows.map((row) => h('tr', {}, row.map((cell, i) =>
    h('td', { class: columns[i][1] }, cell))))));
}

/* The same where it may be wider than the page: it scrolls, with the keyboard too. */
export function table(heads, rows, caption) {
  return h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': caption },
    grid(heads, rows, caption));
}

/* [[name, value], …] without those that have none; `flow`: side by side instead of one a line. */
export function facts(rows, flow) {
  return h('dl', { class: flow ? 'facts flow' : 'facts' }, rows.filter(([, value]) => value !== null && value !== undefined)
    .map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value))));
}

export const details = (summary, ...children) => h('details', {}, h('summary', {}, summary), children);

export const tag = (text) => h('span', 'tag', text);

export function tags(list, most = 12) {
  const shown = (list || []).slice(0, most).map(tag);
  const more = (list || []).length - shown.length;
  return more > 0 ? [shown, tag(`+${more}`)] : shown;
}

const STATES = { succeeded: 'good', failed: 'bad', cancelled: '', running: 'busy', queued: 'busy',
  validating_files: 'busy', paused: 'warn', pausing: 'warn' };

export function badge(text, kind) {
  return h('span', { class: `badge ${kind || ''}` }, text);
}

export const stateBadge = (status) => badge(t(status), STATES[status]);

export function empty(title, text, action) {
  return h('div', 'empty', h('strong', {}, title), text ? h('p', {}, text) : null, action);
}

export const loading = () => h('p', { class: 'loading', role: 'status' }, t('loading'));

/* What an error of api.js says, read out; with a way to try again when given, which a server that is
 * back goes by itself. */
export function fault(error, again) {
  const lines = (error.problems || []).map((one) =>
    h('li', {}, `${one.pointer || ''} ${one.message || one.detail || ''}`));
  const box = h('div', { class: 'fault', role: 'alert' }, h('p', {}, error.message),
    lines.length ? h('ul', {}, lines) : null, again ? button(t('again'), again) : null);
  if (again && error.status === 0) {
    document.addEventListener('mp2:back', () => box.isConnected && again(), { once: true });
  }
  return box;
}

let clearing = 0;

export function notice(text) {
  const place = document.getElementById('notice');
  place.textContent = text;
  clearTimeout(clearing);
  clearing = setTimeout(() => { place.textContent = ''; }, 5000);
}

/* Does `work`, says `said`, then `then`; or says what went wrong. */
export async function act(work, said, then) {
  try {
    await work();
    if (said) {
      notice(t(said));
    }
    if (then) {
      await then();
    }
  } catch (e) {
    notice(e.message);
  }
}

/* Asks before something that cannot be taken back lightly; resolves to true or false. */
export function sure(text, action) {
  return new Promise((answer) => {
    const box = h('dialog', { 'aria-label': text },
      h('form', { method: 'dialog' }, h('p', {}, text), h('div', 'row',
        h('button', { value: 'yes', class: 'danger' }, action),
        h('button', { value: 'no', class: 'plain', autofocus: true }, t('keep')))));
    box.addEventListener('close', () => {
      box.remove();
      answer(box.returnValue === 'yes');
    });
    document.body.append(box);
    box.showModal();
  });
}

/* A block of text with a button that copies it. */
export function copyable(title, text) {
  const pre = h('pre', { tabindex: '0', 'aria-label': title }, text);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(pre.textContent);
      notice(t('copied'));
    } catch {
      getSelection().selectAllChildren(pre); /* no clipboard outside https: ready for Ctrl+C */
      notice(t('selected'));
    }
  };
  return h('div', {}, h('div', 'row between', h('strong', {}, title),
    button(t('copy'), copy, { class: 'plain small', 'aria-label': `${t('copy')}: ${title}` })), pre);
}

export function save(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: 'application/json' }));
  h('a', { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/* ---- numbers and times ---- */

export function percent(value, digits = 1) {
  return Number.isFinite(value) ? `${(value * 100).toFixed(digits)} %` : '–';
}

export function short(value) {
  if (!Number.isFinite(value)) {
    return '–';
  }
  const size = Math.abs(value);
  if (size >= 1e6) {
    return `${(value / 1e6).toFixed(1)} M`;
  }
  if (size >= 1e4) {
    return `${(value / 1e3).toFixed(1)} k`;
  }
  return size >= 100 || Number.isInteger(value) ? value.toFixed(0) : value.toFixed(size >= 10 ? 1 : 2);
}

export function bytes(value) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let i = 0;
  for (; value >= 1024 && i < units.length - 1; i++) {
    value /= 1024;
  }
  return Number.isFinite(value) ? `${i && value < 100 ? value.toFixed(1) : value.toFixed(0)} ${units[i]}` : '–';
}

export function duration(seconds) {
  if (!Number.isFinite(seconds)) {
    return '–';
  }
  const whole = Math.round(seconds);
  if (whole < 60) {
    return `${seconds < 10 ? seconds.toFixed(1) : whole} s`;
  }
  if (whole < 3600) {
    return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  }
  const hours = Math.floor(whole / 3600);
  return hours < 48 ? `${hours} h ${Math.floor(whole % 3600 / 60)} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

const LOCALES = { en: 'en-GB', zh: 'zh-CN' };

/* A moment: short for the eye, whole in its title. */
export function time(seconds) {
  if (!seconds) {
    return '–';
  }
  const date = new Date(seconds * 1000);
  const style = date.toDateString() === new Date().toDateString()
    ? { hour: '2-digit', minute: '2-digit', second: '2-digit' } : { dateStyle: 'medium', timeStyle: 'short' };
  return h('time', { datetime: date.toISOString(), title: date.toLocaleString(LOCALES[language()]) },
    date.toLocaleString(LOCALES[language()], style));
}
