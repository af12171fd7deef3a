/* play.js: the playground, and the form that asks a task beside others with one input. */
import { get, post, query, taskPath } from './api.js';
import { h, fill, field, select, card, heading, input, tags, percent, fault, copyable, short, form, button,
  details, spoken } from './dom.js';
import { bars } from './charts.js';
import { t } from './strings.js';
import { TYPES, labelled, splitLabels } from './tasks.js';

const FIELDS = { classification: ['text'], pair: ['text_a', 'text_b'], choice: ['question', 'context', 'options'], extractive: ['question', 'context'] };
const SAMPLES = {
  classification: { labels: '好评,差评', text: '菜很好吃，服务也周到，下次还来。' },
  pair: { labels: '意思相同,意思不同', text_a: '这家店几点开门？', text_b: '请问营业时间是什么时候？' },
  choice: { question: '他为什么迟到？', context: '路上堵车，王先生九点半才到公司。', options: '堵车\n睡过头\n生病' },
  extractive: { question: '谁迟到了？', context: '路上堵车，王先生九点半才到公司。' },
};

/* ---- inputs ---- */

/* The fields of a task's inputs: those that its template names, or those of its type. */
function fieldsOf(spec) {
  const named = [...(spec.template || '').matchAll(/\{(\w+)\}/g)].map((hit) => hit[1]);
  if (spec.type === 'choice' || named.length === 0) {
    return FIELDS[spec.type];
  }
  return [...new Set(named)];
}

/* An input in one line, for lists. */
export function inputText(given) {
  return given && typeof given === 'object' ? Object.values(given).flat().join(' / ') : String(given ?? '');
}

/* Controls for one input of `spec`, and a function that reads them. */
function inputForm(spec) {
  const names = fieldsOf(spec);
  const controls = names.map((name) => h('textarea', { rows: name === 'question' ? 1 : 3, required: !(spec.type === 'choice' && name === 'context') }));
  const parts = names.map((name, i) => field(t(name), controls[i], name === 'options' ? t('options_hint') : null));
  const read = () => {
    const given = {};
    names.forEach((name, i) => {
      const text = controls[i].value;
      if (name === 'options') {
        given.options = text.split('\n').map((line) => line.trim()).filter((line) => line !== '');
      } else if (text !== '') {
        given[name] = text;
      }
    });
    return given;
  };
  const write = (sample) => names.forEach((name, i) => { controls[i].value = sample[name] || ''; });
  return { parts, read, write };
}

/* ---- answers ---- */

function highlighted(context, prediction) {
  const points = Array.from(context); /* offsets count code points */
  return h('p', 'context', points.slice(0, prediction.start).join(''),
    h('mark', {}, points.slice(prediction.start, prediction.end).join('')), points.slice(prediction.end).join(''));
}

function answerView(prediction, given) {
  const extractive = prediction.answer !== undefined;
  const text = (one) => (extractive ? one.answer || t('no_answer') : one.label);
  const scores = prediction.scores && prediction.scores.length ? prediction.scores : [prediction];
  return [h('p', {}, h('strong', 'winner', text(prediction)), ` ${percent(prediction.score)}`),
    extractive && given.context ? highlighted(given.context, prediction) : null,
    !extractive || scores.length > 1 ? bars(scores.map((one) => ({ label: text(one), value: one.score })), true) : null,
    prediction.truncated ? h('p', 'hint', `${t('truncated')}: ${prediction.truncated}`) : null];
}

function timingLine(answer) {
  const { queue_ms: queue, infer_ms: infer } = answer.timing || {};
  return h('p', 'hint', `${answer.usage.tokens} ${t('tokens')}`, queue === undefined ? null
    : ` · ${t('in_queue')} ${short(queue)} ms · ${t('inference')} ${short(infer)} ms`);
}

/* ---- the request as code ---- */

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

/* The key is never written out: both read it from the environment. */
function codeView(body) {
  const curl = `curl -s ${location.origin}/v1/predict \\\n  -H "Authorization: Bearer $MP2_KEY" \\\n  -H 'Content-Type: application/json' \\\n  -d ${quoted(JSON.stringify(body, null, 1))}`;
  const python = `import json, os, urllib.request\n\nbody = ${asPython(body)}\nrequest = urllib.request.Request("${location.origin}/v1/predict", json.dumps(body).encode(), {\n    "Authorization": "Bearer " + os.environ["MP2_KEY"],\n    "Content-Type": "application/json",\n})\nprint(json.load(urllib.request.urlopen(request)))\n`;
  return details(t('as_code'), copyable('curl', curl), copyable('Python', python));
}

/* ---- asking ---- */

/* [{title, target}]: targets asked side by side with one input; `spec` says its type and fields. `before`
 * are controls above the input; `sample` fills them and the input in. */
function askForm(spec, targets, { before, sample } = {}) {
  const { parts, read, write } = inputForm(spec);
  const place = spoken();
  const ask = async () => {
    const given = read();
    const bodies = targets.map((one) => ({ ...one.target(), inputs: [given], return: ['scores', 'timing'] }));
    const answers = await Promise.allSettled(bodies.map((body) => post('/v1/predict', body)));
    if (answers[0].status === 'rejected') {
      fill(place);
      throw answers[0].reason;
    }
    fill(place, h('div', 'grid even three answers', answers.map(({ value, reason }, i) =>
      h('section', 'answer', targets[i].title ? h('h3', {}, targets[i].title) : null,
        reason ? fault(reason) : [answerView(value.predictions[0], given), timingLine(value)]))), codeView(bodies[0]));
  };
  const fillIn = sample ? button(t('fill_in'), () => write(sample()), { class: 'quiet small' }) : null;
  return h('div', {}, form([before, parts], t('predict'), ask, { after: fillIn }), place);
}

/* The same task without its route: its type, labels and template alone. */
function bare(spec) {
  const target = { type: spec.type };
  if (spec.labels && spec.labels.length) {
    target.labels = spec.labels;
  }
  if (spec.template) {
    target.template = spec.template;
  }
  return target;
}

/* A task beside its previous version and zero-shot. `mine`: a version that need not be the current one. */
export function tryBox(spec, title, before, mine) {
  const at = (version) => ({ title: t('version_n', { name: spec.name, version: version.version }),
    target: () => ({ task: `${spec.name}@${version.version}` }) });
  const first = mine ? at(mine) : { title: spec.name, target: () => ({ task: spec.name }) };
  return card(title, h('p', 'hint', t('side_by_side')), askForm(spec, [first, ...(before ? [at(before)] : []),
    { title: t('zero_shot'), target: () => bare(spec) }]));
}

/* ---- the page ---- */

function byName(place, chosen) {
  const name = input({ required: true, list: 'task-names', value: chosen || '' });
  const names = h('datalist', { id: 'task-names' });
  const asking = h('div');
  let typing = 0;
  const suggest = async () => {
    try {
      const list = await get(`/v1/tasks${query({ limit: 20, q: name.value.trim() })}`);
      fill(names, list.data.map((one) => h('option', { value: one.name })));
    } catch { /* suggestions only */ }
  };
  const choose = async () => {
    fill(asking);
    const spec = await get(taskPath(name.value.trim()));
    fill(asking, h('p', {}, tags([t(spec.type), ...(spec.labels || [])], 20)),
      askForm(spec, [{ title: spec.name, target: () => ({ task: spec.name }) }, { title: t('zero_shot'), target: () => bare(spec) }]));
  };
  name.addEventListener('input', () => { clearTimeout(typing); typing = setTimeout(suggest, 200); });
  suggest();
  fill(place, form([field(t('task'), name), names], t('choose'), choose), asking);
  if (chosen) {
    choose().catch((e) => fill(asking, fault(e)));
  }
}

function byType(place, type) {
  const labels = input({ required: true }), template = input({ placeholder: type === 'pair' ? '{text_a} {text_b}' : '{text}' });
  const asksLabels = labelled(type);
  const target = () => {
    const spec = { type };
    if (asksLabels) {
      spec.labels = splitLabels(labels.value);
      if (template.value.trim() !== '') {
        spec.template = template.value.trim();
      }
    }
    return spec;
  };
  const sample = () => {
    labels.value = labels.value || SAMPLES[type].labels || '';
    return SAMPLES[type];
  };
  fill(place, askForm({ type }, [{ title: null, target }], { sample, before: asksLabels
    ? h('div', 'fields', field(t('labels'), labels, t('labels_hint')), field(t('template'), template, t('template_hint'))) : null }));
}

export async function play(main, argument) {
  const place = h('div');
  const kind = select([['task', t('own_task')], ...TYPES.map((type) => [type, t(type)])], argument ? 'task' : 'classification');
  const change = () => (kind.value === 'task' ? byName(place, argument) : byType(place, kind.value));
  kind.addEventListener('change', change);
  main.append(...heading(t('play')), h('p', 'lead', t('play_lead')),
    h('section', 'card', field(t('what'), kind, t('what_hint')), place));
  change();
}
