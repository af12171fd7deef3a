/* rows.js: rows of labelled examples as they were given (JSONL or CSV), sent to the server, and shown
 * one by one with what the server says of each. The server alone judges; what is read here is only for
 * showing a row beside its verdict.
 */
import { post } from './api.js';
import { h, fill, field, fault, grid, short, badge, select } from './dom.js';
import { bars } from './charts.js';
import { t } from './strings.js';

const SHOWN = 300;

const looksLikeJson = (text) => /^[\s\uFEFF]*\{/.test(text);

/* Sends rows as a file; what comes back describes it. Throws, with the rows' faults, when none is good. */
export function upload(text, name) {
  const form = new FormData();
  const kind = looksLikeJson(text) ? 'jsonl' : 'csv';
  const stem = (name || 'examples').replace(/\.[^.]*$/, '').slice(0, 80) || 'examples';
  form.append('purpose', 'fine-tune');
  form.append('file', new Blob([text]), `${stem}.${kind}`);
  return post('/v1/files', form);
}

/* ---- reading ---- */

function readJsonl(text) {
  return text.split('\n').map((raw, i) => ({ line: i + 1, raw })).filter((row) => row.raw.trim() !== '')
    .map(({ line, raw }) => {
      try {
        return { line, value: JSON.parse(raw) };
      } catch {
        return { line, raw };
      }
    });
}

/* Records of a CSV file: quotes, doubled quotes, line breaks inside quotes. */
function records(text) {
  const list = [];
  let cells = [], cell = '', quoted = false, line = 1, begun = 1;
  const end = () => {
    if (cells.length || cell !== '') {
      list.push({ line: begun, cells: [...cells, cell] });
    }
    cells = [];
    cell = '';
    begun = line + 1;
  };
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (quoted && c === '"' && text[i + 1] === '"') {
      cell += '"';
      i++;
    } else if (c === '"') {
      quoted = !quoted;
    } else if (c === ',' && !quoted) {
      cells.push(cell);
      cell = '';
    } else if (c === '\n' && !quoted) {
      end();
      line++;
    } else if (c !== '\r' || quoted) {
      cell += c;
      line += c === '\n' ? 1 : 0;
    }
  }
  end();
  return list;
}

function readCsv(text) {
  const [head, ...rest] = records(text.replace(/^\uFEFF/, ''));
  return rest.map(({ line, cells }) =>
    ({ line, value: Object.fromEntries(cells.map((cell, i) => [head.cells[i] || String(i + 1), cell])) }));
}

function readRows(text) {
  return looksLikeJson(text) ? readJsonl(text) : readCsv(text);
}

/* ---- showing ---- */

function contentOf({ value, raw }) {
  if (value === null || typeof value !== 'object') {
    return raw === undefined ? JSON.stringify(value) : raw;
  }
  if (Array.isArray(value.messages)) {
    return value.messages.map((one) => one && one.content).slice(0, -1).join(' / ');
  }
  return Object.entries(value).filter(([name]) => !['label', 'answer', 'answer_start'].includes(name))
    .map(([, one]) => (Array.isArray(one) ? one.join(' | ') : String(one))).join(' / ');
}

function labelOf({ value }) {
  if (value === null || typeof value !== 'object') {
    return '';
  }
  const last = Array.isArray(value.messages) ? value.messages.at(-1) : null;
  const label = value.label ?? value.answer ?? (last && last.content);
  return label === undefined || label === null ? '' : String(label);
}

function verdicts(rows, errors) {
  const reasons = new Map();
  for (const one of errors) {
    const text = one.pointer ? `${one.pointer}: ${one.message}` : one.message;
    reasons.set(one.line, reasons.has(one.line) ? `${reasons.get(one.line)}; ${text}` : text);
  }
  return rows.map((row) => ({ ...row, reason: reasons.get(row.line) || null }));
}

function rowTable(rows) {
  const shown = rows.slice(0, SHOWN);
  const clip = (text) => (text.length > 160 ? `${text.slice(0, 160)}…` : text);
  const reasons = rows.some((row) => row.reason);
  return [h('div', { class: 'scroll rows', tabindex: '0', role: 'region', 'aria-label': t('checked') },
    grid([[t('line'), 'num'], t('verdict'), [t('text'), 'wide'], t('label'), ...(reasons ? [[t('why'), 'wide']] : [])], shown.map((row) => [
      String(row.line), row.reason ? badge(t('row_bad'), 'bad') : badge(t('row_good'), 'good'),
      clip(contentOf(row)), clip(labelOf(row)), ...(reasons ? [row.reason || ''] : [])]), t('checked'))),
  rows.length > shown.length ? h('p', 'hint', t('rows_more', { n: rows.length - shown.length })) : null];
}

function labelBars(rows) {
  const counts = new Map();
  for (const row of rows.filter((one) => !one.reason)) {
    counts.set(labelOf(row), (counts.get(labelOf(row)) || 0) + 1);
  }
  const most = Math.max(...counts.values(), 1);
  return counts.size > 1 && counts.size <= 20 ? [h('h3', {}, t('rows_per_label')), bars([...counts].sort((a, b) => b[1] - a[1])
    .map(([label, n]) => ({ label, value: n / most, text: short(n) })))] : null;
}

/* What came of a file: `details` of the server (rows, bad_rows, errors, type, labels). */
export function checkedView(text, details) {
  const rows = verdicts(readRows(text), details.errors || []);
  const list = h('div');
  const which = select([['all', t('every_row')], ['bad', t('only_bad')]], details.bad_rows ? 'bad' : 'all');
  const draw = () => fill(list, rowTable(which.value === 'bad' ? rows.filter((row) => row.reason) : rows));
  which.addEventListener('change', draw);
  draw();
  return h('div', {}, h('p', 'checked', h('strong', { class: details.rows ? 'good' : 'bad' }, t('rows_good', { n: details.rows })),
    details.bad_rows ? [' · ', h('strong', 'bad', t('rows_bad', { n: details.bad_rows }))] : null,
    details.type ? ` · ${t(details.type)}` : null),
  details.type === 'classification' || details.type === 'pair' ? labelBars(rows) : null,
  h('h3', {}, t('row_by_row')), details.bad_rows ? field(t('show'), which) : null, list);
}

/* The same of a file that the server refused whole. */
export function refusedView(text, error) {
  return h('div', {}, fault({ message: error.message }), error.problems.length
    ? checkedView(text, { rows: 0, bad_rows: error.problems.length, errors: error.problems }) : null);
}
