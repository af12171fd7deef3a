/* charts.js: the drawings, as SVG or plain boxes. Each says in words what it shows (aria-label or a
 * table beside it); colours come from the style sheet. */
import { h, short, percent } from './dom.js';
import { t } from './strings.js';

const SVG = 'http://www.w3.org/2000/svg';
const KINDS = ['one', 'two', 'three'];

function shape(tag, props, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(props)) {
    element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/* [{label, value 0…1, text?}] as bars, the first in bold when `win`. */
export function bars(items, win) {
  return h('div', 'bars', items.map((item, i) => {
    const inner = h('div', 'fill');
    inner.hidden = !(item.value > 0);
    inner.style.width = `${Math.min(1, item.value) * 100}%`;
    return [h('span', { class: win && i === 0 ? 'what first' : 'what' }, item.label),
      h('div', { class: 'track', 'aria-hidden': 'true' }, inner),
      h('span', 'value', item.text || percent(item.value))];
  }));
}

/* How far from a limit: [{label, value, limit, text}]. */
export function meters(items) {
  const list = bars(items.map(({ label, value, limit, text }) =>
    ({ label, value: limit > 0 ? value / limit : 0, text })));
  list.querySelectorAll('.fill').forEach((fill, i) => {
    const share = items[i].limit > 0 ? items[i].value / items[i].limit : 0;
    fill.classList.toggle('high', share >= 0.7 && share < 0.9);
    fill.classList.toggle('full', share >= 0.9);
  });
  return list;
}

/* The last values as a line without axes. */
export function spark(values) {
  const most = Math.max(...values, 1e-9), last = Math.max(values.length - 1, 1);
  const line = values.map((v, i) => `${(i / last * 100).toFixed(1)},${(26 - v / most * 24).toFixed(1)}`);
  const svg = shape('svg', { viewBox: '0 0 100 28', preserveAspectRatio: 'none', 'aria-hidden': 'true' });
  if (values.length > 1) {
    svg.append(shape('polygon', { class: 'area', points: `0,28 ${line.join(' ')} 100,28` }),
      shape('polyline', { class: 'curve', points: line.join(' '), 'vector-effect': 'non-scaling-stroke' }));
  }
  return h('div', 'spark', svg);
}

/* 1, 2 or 5 times a power of ten, so that about `n` of them fit. */
function niceStep(range, n) {
  const raw = range / n, power = 10 ** Math.floor(Math.log10(raw));
  return [1, 2, 5, 10].map((m) => m * power).find((step) => step >= raw);
}

function ticks(from, to, n) {
  const step = niceStep(Math.max(to - from, 1e-9), n), list = [];
  for (let v = Math.ceil(from / step - 1e-9) * step; v <= to + step * 1e-6; v += step) {
    list.push(Math.abs(v) < step * 1e-9 ? 0 : v);
  }
  return list;
}

function bounds(series, { floor, ceiling, from, to }) {
  const points = series.flatMap((one) => one.points);
  const xs = points.map((p) => p[0]), ys = points.map((p) => p[1]);
  const x0 = from ?? Math.min(...xs), x1 = to ?? Math.max(...xs);
  let y0 = floor === undefined ? Math.min(...ys) : floor;
  let y1 = ceiling === undefined ? Math.max(...ys, y0 + 1e-6) : ceiling;
  if (ceiling === undefined) {
    const step = niceStep(y1 - y0, 4);
    y1 = Math.ceil(y1 / step - 1e-9) * step;
    y0 = floor === undefined ? Math.floor(y0 / step + 1e-9) * step : y0;
  }
  return { x0, x1: x1 > x0 ? x1 : x0 + 1, y0, y1 };
}

/* Points [x, y, part] cut where the part changes: a line never joins two of them. */
function runs(points) {
  const list = [];
  points.forEach((p, i) => {
    if (i === 0 || p[2] !== points[i - 1][2]) {
      list.push([]);
    }
    list.at(-1).push(p);
  });
  return list;
}

function plot(width, series, options) {
  const { yText = short, xText = short, dots, parts = [] } = options;
  const height = 190, left = 44, right = 12, top = parts.length ? 20 : 8, bottom = 22;
  const { x0, x1, y0, y1 } = bounds(series, options);
  const x = (v) => left + (v - x0) / (x1 - x0) * (width - left - right);
  const y = (v) => height - bottom - (v - y0) / (y1 - y0) * (height - top - bottom);
  const svg = shape('svg', { width, height, 'aria-hidden': 'true' });
  for (const v of ticks(y0, y1, 4)) {
    svg.append(shape('line', { class: 'gridline', x1: left, x2: width - right, y1: y(v), y2: y(v) }),
      shape('text', { x: left - 6, y: y(v) + 4, 'text-anchor': 'end' }, yText(v)));
  }
  for (const v of ticks(x0, x1, Math.max(2, Math.floor(width / 110)))) {
    svg.append(shape('text', { x: x(v), y: height - 5, 'text-anchor': 'middle' }, xText(v)));
  }
  parts.filter((part) => part.from < x1).forEach((part, i) => {
    const from = Math.max(x(part.from), left), to = x(Math.min(part.to, x1));
    if (i > 0) {
      svg.append(shape('line', { class: 'break', x1: from, x2: from, y1: top, y2: height - bottom }));
    }
    svg.append(shape('text', { x: (from + to) / 2, y: 12, 'text-anchor': 'middle' }, to - from > 80 ? part.name : part.mark));
  });
  series.forEach((one, i) => {
    for (const run of runs(one.points)) {
      const line = run.map((p) => `${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`).join(' ');
      svg.append(shape('polyline', { class: `curve ${KINDS[i]}`, points: line }));
    }
    for (const p of dots && one.points.length < 60 ? one.points : []) {
      svg.append(shape('circle', { class: `dot ${KINDS[i]}`, cx: x(p[0]), cy: y(p[1]), r: 2.5 }));
    }
  });
  return { svg, left, right, height, bottom, top, x0, x1 };
}

/* Lines over x: series [{name, points: [[x, y], …]}], at most three. The legend shows the newest
 * values, or those under the pointer. Drawn when its width is known, and again when it changes.
 * options.parts [{from, to, name, mark}]: stretches of x that begin anew, as points [x, y, part] say;
 * options.partsText: what they are. */
export function chart(title, series, options = {}) {
  const { yText = short, xText = short } = options;
  const shown = series.map((one) => ({ ...one, points: [...one.points].sort((a, b) => a[0] - b[0]) }))
    .filter((one) => one.points.length);
  const values = shown.map(() => h('b'));
  const legend = h('figcaption', 'legend', shown.map((one, i) =>
    h('span', { class: KINDS[i] }, one.name, ' ', values[i])), options.parts ? h('span', 'parts', options.partsText) : null, h('b', 'at'));
  const at = legend.querySelector('.at'), place = h('div', 'plot');
  const tell = (v) => {
    shown.forEach((one, i) => {
      const near = v === null ? one.points.at(-1)
        : one.points.reduce((best, p) => (Math.abs(p[0] - v) < Math.abs(best[0] - v) ? p : best));
      values[i].textContent = yText(near[1]);
    });
    at.textContent = v === null ? '' : xText(v);
  };
  const draw = (width) => {
    if (!shown.length || width < 60) {
      return;
    }
    const { svg, left, right, height, bottom, top, x0, x1 } = plot(width, shown, options);
    const cursor = shape('line', { class: 'cursor', y1: top, y2: height - bottom, visibility: 'hidden' });
    svg.append(cursor);
    svg.addEventListener('pointermove', (event) => {
      const share = (event.offsetX - left) / (width - left - right);
      if (share >= 0 && share <= 1) {
        cursor.setAttribute('x1', event.offsetX);
        cursor.setAttribute('x2', event.offsetX);
        cursor.setAttribute('visibility', 'visible');
        tell(Math.round((x0 + share * (x1 - x0)) * 10) / 10);
      }
    });
    svg.addEventListener('pointerleave', () => {
      cursor.setAttribute('visibility', 'hidden');
      tell(null);
    });
    place.replaceChildren(svg);
  };
  new ResizeObserver(([entry]) => draw(Math.floor(entry.contentRect.width))).observe(place);
  if (shown.length) {
    tell(null);
  }
  const words = shown.map((one) => `${one.name} ${runs(one.points).map((run) => yText(run.at(-1)[1])).join(' ')}`).join(', ');
  return h('figure', { role: 'group', 'aria-label': `${title}: ${words || t('none')}${options.parts ? `. ${options.partsText}` : ''}` }, legend, place);
}

/* [[name, value], …] as columns: the days of a month. */
export function columns(title, items, yText = short) {
  const most = Math.max(...items.map((item) => item[1]), 1), width = 100 / Math.max(items.length, 1);
  const svg = shape('svg', { viewBox: '0 0 100 40', preserveAspectRatio: 'none', role: 'img',
    width: '100%', height: '120', 'aria-label': `${title}: ${yText(most)}` });
  items.forEach(([name, value], i) => {
    const tall = value / most * 39;
    svg.append(shape('rect', { class: value ? 'column' : 'ghost', x: i * width + width * 0.12,
      y: 40 - Math.max(tall, 0.5), width: width * 0.76, height: Math.max(tall, 0.5) },
    shape('title', {}, `${name}: ${yText(value)}`)));
  });
  return svg;
}

/* ---- routes ---- */

const sigmoid = (r) => 1 / (1 + Math.exp(-r));

function routeColumns(weights, label, large) {
  const wide = large ? 320 : 160, high = large ? 120 : 56, step = wide / weights.length;
  const svg = shape('svg', { viewBox: `0 0 ${wide} ${high + 16}`, role: 'img', 'aria-label': label });
  weights.forEach((w, i) => {
    const x = i * step + step * 0.14, width = step * 0.72;
    svg.append(shape('rect', { class: 'ghost', x, y: 0, width, height: high, rx: 2 }),
      shape('rect', { class: 'column', x, y: high - w * high, width, height: Math.max(w * high, 1), rx: 2 },
        shape('title', {}, `${t('module')} ${i + 1}: ${w.toFixed(3)}`)));
    svg.append(shape('text', { x: x + width / 2, y: high + 13, 'text-anchor': 'middle' }, String(i + 1)));
  });
  return svg;
}

function routeHeat(weights, modules, label) {
  const heat = h('div', { class: 'heat', role: 'img', 'aria-label': label });
  heat.style.gridTemplateColumns = `repeat(${modules}, 1fr)`;
  weights.forEach((w, i) => {
    const cell = h('span', { title: `${t('layer')} ${Math.floor(i / modules) + 1}, ${t('module')} ${i % modules + 1}: ${w.toFixed(3)}` });
    cell.style.opacity = 0.08 + 0.92 * w;
    heat.append(cell);
  });
  return heat;
}

/* A route as the weights w = sigmoid(r) of its modules: columns, or for a deep bank a heat map of
 * layers × modules. No numbers at all: every module by half. */
export function routeView(name, route, { large, modules = 8, caption } = {}) {
  const weights = (route && route.length ? route : Array(modules).fill(0)).map(sigmoid);
  const deep = weights.length > modules, said = weights.map((w, i) =>
    (deep && i % modules === 0 ? `${t('layer')} ${i / modules + 1}: ` : '') + w.toFixed(2)).join(' ');
  const label = `${t('route')} ${name}: ${said}`;
  return h('figure', {}, deep ? routeHeat(weights, modules, label) : routeColumns(weights, label, large),
    h('figcaption', {}, caption || name, deep && large ? h('div', 'hint', t('heat')) : null));
}

/* ---- confusion matrix ---- */

export function confusionView({ labels, matrix }) {
  const most = Math.max(...matrix.flat(), 1);
  return h('div', { class: 'confusion scroll', tabindex: '0', role: 'region', 'aria-label': t('confusion') },
    h('table', {}, h('thead', {}, h('tr', {}, h('td'), labels.map((label) => h('th', { scope: 'col' }, label)))),
      h('tbody', {}, matrix.map((row, i) => h('tr', {}, h('th', { scope: 'row' }, labels[i]),
        row.map((n, j) => {
          const cell = h('td', { class: i === j ? 'cell' : 'cell miss' }, String(n));
          cell.style.setProperty('--share', `${n / most * 42}%`);
          return cell;
        }))))), h('p', 'hint', t('confusion_hint')));
}
