/* play.js: the playground, and the small form that asks one task. */
import { get, post, query, taskPath } from './api.js';
import { h, fill, field, select, card, bars, percent, fault, copyable, short } from './dom.js';
import { t } from './strings.js';

const TYPES = ['classification', 'pair', 'choice', 'extractive'];
const FIELDS = { classification: ['text'], pair: ['text_a', 'text_b'], choice: ['question', 'context', 'options'], extractive: ['question', 'context'] };

/* The fields of a task's inputs: those that its template names, or those of its type. */
function fieldsOf(spec) {
  const named = [...(spec.template || '').matchAll(/\{(\w+)\}/g)].map((hit) => hit[1]);
  if (spec.type === 'choice' || named.length === 0) {
    return FIELDS[spec.type];
  }
  return [...new Set(named)];
}

/* Controls for one input of `spec`, and a function that reads them. */
function inputForm(spec) {
  const names = fieldsOf(spec);
  const controls = names.map((name) => h('textarea', { rows: name === 'question' ? 1 : 3, required: !(spec.type === 'choice' && name === 'context') }));
  const parts = names.map((name, i) => field(t(name), controls[i], name === 'options' ? t('options_hint') : null));
  const read = () => {
    const input = {};
    names.forEach((name, i) => {
      const text = controls[i].value;
      if (name === 'options') {
        input.options = text.split('\n').map((line) => line.trim()).filter((line) => line !== '');
      } else if (text !== '') {
        input[name] = text;
      }
    });
    return input;
  };
  return { parts, read };
}

function highlighted(context, prediction) {
  const points = Array.from(context); /* offsets count code points */
  return h('p', { class: 'context' }, points.slice(0, prediction.start).join(''),
    h('mark', {}, points.slice(prediction.start, prediction.end).join('')), points.slice(prediction.end).join(''));
}

export function answerView(prediction, input) {
  if (prediction.answer !== undefined) {
    return h('div', {}, h('p', {}, h('strong', { class: 'winner' }, prediction.answer || t('no_answer')), ` ${percent(prediction.score)}`),
      input.context ? highlighted(input.context, prediction) : null,
      prediction.scores && prediction.scores.length > 1 ? bars(prediction.scores.map((one) => ({ label: one.answer || t('no_answer'), value: one.score }))) : null);
  }
  return h('div', {}, h('p', {}, h('strong', { class: 'winner' }, prediction.label), ` ${percent(prediction.score)}`),
    bars((prediction.scores || [prediction]).map((one) => ({ label: one.label, value: one.score }))),
    prediction.truncated ? h('p', { class: 'hint' }, `${t('truncated')}: ${prediction.truncated}`) : null);
}

/* A quoted word of sh. */
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function asPython(value, indent = '') {
  if (Array.isArray(value)) {
    return `[${value.map((one) => asPython(one, indent)).join(', ')}]`;
  }
  if (value && typeof value === 'object') {
    const inner = `${indent}    `;
    return `{\n${Object.entries(value).map(([key, one]) => `${inner}${JSON.stringify(key)}: ${asPython(one, inner)},\n`).join('')}${indent}}`;
  }
  return value === null ? 'None' : value === true ? 'True' : value === false ? 'False' : JSON.stringify(value);
}

function samples(body) {
  const curl = `curl -s ${location.origin}/v1/predict \\\n  -H "Authorization: Bearer $MP2_KEY" \\\n  -H 'Content-Type: application/json' \\\n  -d ${quoted(JSON.stringify(body, null, 1))}`;
  const python = `import json, os, urllib.request\n\nbody = ${asPython(body)}\nrequest = urllib.request.Request("${location.origin}/v1/predict", json.dumps(body).encode(), {\n    "Authorization": "Bearer " + os.environ["MP2_KEY"],\n    "Content-Type": "application/json",\n})\nprint(json.load(urllib.request.urlopen(request)))\n`;
  return h('details', {}, h('summary', {}, t('as_code')), copyable('curl', curl), copyable('Python', python));
}

/* [{title, target}]: targets asked side by side with one input; `spec` says its type and fields. */
export function askForm(spec, targets) {
  const { parts, read } = inputForm(spec);
  const place = h('div', { 'aria-live': 'polite' });
  const submit = async (event) => {
    event.preventDefault();
    const input = read();
    try {
      const answers = await Promise.all(targets.map((one) => {
        const body = { ...one.target(), inputs: [input], return: ['scores', 'timing'] };
        return post('/v1/predict', body).then((answer) => ({ title: one.title, body, answer }));
      }));
      fill(place, h('div', { class: 'grid' }, answers.map(({ title, body, answer }) =>
        h('div', { class: 'answer' }, title ? h('h3', {}, title) : null, answerView(answer.predictions[0], input),
          h('p', { class: 'hint' }, `${answer.usage.tokens} ${t('tokens')} · ${t('in_queue')} ${short(answer.timing.queue_ms)} ms · ${t('inference')} ${short(answer.timing.infer_ms)} ms`), samples(body)))));
    } catch (e) {
      fill(place, fault(e));
    }
  };
  return h('form', { onsubmit: submit }, parts, h('div', { class: 'row' }, h('button', {}, t('predict'))), place);
}

/* The same task without its route: its type, labels and template alone. */
export function bare(spec) {
  const target = { type: spec.type };
  if (spec.labels && spec.labels.length) {
    target.labels = spec.labels;
  }
  if (spec.template) {
    target.template = spec.template;
  }
  return target;
}

export function tryBox(spec, title) {
  return card(title || t('try_it'), askForm(spec, [
    { title: spec.name, target: () => ({ task: spec.name }) },
    { title: t('zero_shot'), target: () => bare(spec) }]));
}

function byName(place) {
  const name = h('input', { autocomplete: 'off', required: true, list: 'task-names' });
  const names = h('datalist', { id: 'task-names' });
  const form = h('div', {});
  let typing = 0;
  const suggest = async () => {
    try {
      const list = await get(`/v1/tasks${query({ limit: 20, q: name.value.trim() })}`);
      fill(names, list.data.map((one) => h('option', { value: one.name })));
    } catch { /* suggestions only */ }
  };
  const choose = async (event) => {
    event.preventDefault();
    try {
      const spec = await get(taskPath(name.value.trim()));
      fill(form, h('p', {}, h('span', { class: 'tag' }, t(spec.type)), (spec.labels || []).map((label) => h('span', { class: 'tag' }, label))),
        askForm(spec, [{ title: null, target: () => ({ task: spec.name }) }]));
    } catch (e) {
      fill(form, fault(e));
    }
  };
  name.addEventListener('input', () => { clearTimeout(typing); typing = setTimeout(suggest, 200); });
  suggest();
  fill(place, h('form', { onsubmit: choose }, field(t('task'), name), names, h('div', { class: 'row' }, h('button', { class: 'plain' }, t('choose')))), form);
}

function byType(place, type) {
  const labels = h('input', { autocomplete: 'off', required: true });
  const template = h('input', { autocomplete: 'off', placeholder: type === 'pair' ? '{text_a} {text_b}' : '{text}' });
  const labelled = type === 'classification' || type === 'pair';
  const target = () => {
    const spec = { type };
    if (labelled) {
      spec.labels = labels.value.split(/[,，、]/).map((one) => one.trim()).filter((one) => one !== '');
    }
    if (template.value.trim() !== '' && labelled) {
      spec.template = template.value.trim();
    }
    return spec;
  };
  fill(place, labelled ? [field(t('labels'), labels, t('labels_hint')), field(t('template'), template, t('template_hint'))] : null,
    askForm({ type }, [{ title: null, target }]));
}

export async function play(main) {
  const place = h('div', {});
  const kind = select([['task', t('own_task')], ...TYPES.map((type) => [type, t(type)])], 'classification');
  const change = () => (kind.value === 'task' ? byName(place) : byType(place, kind.value));
  kind.addEventListener('change', change);
  main.append(h('h1', {}, t('play')), h('div', { class: 'card' }, field(t('what'), kind, t('what_hint')), place));
  change();
}
