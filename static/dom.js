/* dom.js: making elements. Data only ever becomes text nodes and attribute values; no markup is parsed. */
import { t } from './strings.js';

/* h('p', {class: 'hint', onclick: f}, 'text', element): attributes by name, listeners by on…. */
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props || {})) {
    if (name.startsWith('on')) {
      element.addEventListener(name.slice(2), value);
    } else if (value === true) {
      element.setAttribute(name, '');
    } else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value);
    }
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export function fill(parent, ...children) {
  parent.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
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
  return h('div', {}, parts);
}

export function select(options, chosen) {
  return h('select', {}, options.map(([value, text]) =>
    h('option', { value, selected: value === chosen }, text)));
}

export function card(title, ...children) {
  return h('section', { class: 'card' }, title ? h('h2', {}, title) : null, children);
}

export function table(heads, rows, caption) {
  return h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': caption },
    h('table', {}, h('thead', {}, h('tr', {}, heads.map((head) => h('th', { scope: 'col' }, head)))),
      h('tbody', {}, rows.map((row) => h('tr', {}, row.map((cell) => h('td', {}, cell)))))));
}

export function percent(value) {
  return `${(value * 100).toFixed(1)} %`;
}

/* [{label, value 0…1, text?}] as bars. */
export function bars(items) {
  const list = h('div', { class: 'bars' });
  for (const item of items) {
    const inner = h('div', { class: 'fill' });
    inner.style.width = `${Math.max(0, Math.min(1, item.value)) * 100}%`;
    list.append(h('span', { class: 'what' }, item.label),
      h('div', { class: 'track', 'aria-hidden': 'true' }, inner),
      h('span', { class: 'value' }, item.text || percent(item.value)));
  }
  return list;
}

const SVG = 'http://www.w3.org/2000/svg';

function shape(tag, props, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(props)) {
    element.setAttribute(name, value);
  }
  if (text !== undefined) {
    element.textContent = text;
  }
  return element;
}

/* Lines over x: series [{name, points: [[x, y], …]}], at most two. */
export function chart(title, series, floor) {
  const width = Math.min(560, Math.max(300, innerWidth - 60)), height = 180; /* near one unit a pixel */
  const left = 46, right = 8, top = 10, bottom = 22;
  const all = series.flatMap((one) => one.points);
  const svg = shape('svg', { viewBox: `0 0 ${width} ${height}`, class: 'chart', role: 'img', 'aria-label': title });
  if (all.length > 0) {
    const xs = all.map((p) => p[0]), ys = all.map((p) => p[1]);
    const x0 = Math.min(...xs), x1 = Math.max(...xs, x0 + 1e-9);
    const y0 = floor === undefined ? Math.min(...ys) : floor, y1 = Math.max(...ys, y0 + 1e-6);
    const x = (v) => left + (v - x0) / (x1 - x0) * (width - left - right);
    const y = (v) => height - bottom - (v - y0) / (y1 - y0) * (height - top - bottom);
    svg.append(shape('line', { class: 'axis', x1: left, x2: width - right, y1: y(y0), y2: y(y0) }),
      shape('line', { class: 'axis', x1: left, x2: width - right, y1: y(y1), y2: y(y1) }),
      shape('text', { x: 2, y: y(y0) }, short(y0)), shape('text', { x: 2, y: y(y1) + 8 }, short(y1)),
      shape('text', { x: left, y: height - 6 }, short(x0)),
      shape('text', { x: width - right, y: height - 6, 'text-anchor': 'end' }, short(x1)));
    series.forEach((one, i) => {
      const points = [...one.points].sort((a, b) => a[0] - b[0]);
      svg.append(shape('polyline', { class: i ? 'two' : 'one', points: points.map((p) => `${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`).join(' ') }));
      if (i) {
        points.forEach((p) => svg.append(shape('circle', { class: 'dot-two', cx: x(p[0]), cy: y(p[1]), r: 3 })));
      }
    });
  }
  return h('figure', { style: null }, h('figcaption', { class: 'legend' },
    series.map((one, i) => h('span', { class: i ? 'two' : 'one' }, one.name))), svg);
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

export function time(seconds) {
  return seconds ? new Date(seconds * 1000).toLocaleString() : '–';
}

/* What an error of api.js says, as a paragraph that is read out. */
export function fault(error) {
  const lines = (error.problems || []).map((one) => h('li', {}, `${one.pointer || ''} ${one.message || one.detail || ''}`));
  return h('div', { class: 'fault', role: 'alert' }, h('p', {}, error.message), lines.length ? h('ul', {}, lines) : null);
}

let clearing = 0;

export function notice(text) {
  const place = document.getElementById('notice');
  place.textContent = text;
  clearTimeout(clearing);
  clearing = setTimeout(() => { place.textContent = ''; }, 4000);
}

/* A block of text with a button that copies it. */
export function copyable(title, text) {
  const pre = h('pre', { tabindex: '0' }, text);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(pre.textContent);
      notice(t('copied'));
    } catch {
      getSelection().selectAllChildren(pre); /* no clipboard outside https: ready for Ctrl+C */
      notice(t('selected'));
    }
  };
  return h('div', {}, h('div', { class: 'row' }, h('strong', {}, title),
    h('button', { type: 'button', class: 'plain', onclick: copy, 'aria-label': `${t('copy')}: ${title}` }, t('copy'))), pre);
}

export function save(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: 'application/json' }));
  h('a', { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
