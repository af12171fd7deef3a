/* task.js: one task: what it is, the route it learnt beside its nearest tasks', its versions and their
 * scores, how well it does on rows of yours, and where it can be asked. */
import { call, get, post, maybe, query, taskPath, all } from './api.js';
import { h, fill, field, card, headed, heading, facts, table, tags, tag, badge, percent, short, time, fault,
  notice, act, hash, link, save, sure, button, fileButton, form, input, stateBadge, rowButton, spoken } from './dom.js';
import { routeView, confusionView } from './charts.js';
import { t } from './strings.js';
import { tryBox, inputText } from './play.js';
import { upload } from './rows.js';
import { readExport } from './tasks.js';

const SCORES = ['accuracy', 'macro_f1', 'exact_match', 'f1'];

export function score(metrics) {
  const shown = SCORES.filter((name) => metrics && typeof metrics[name] === 'number');
  return shown.length ? shown.map((name) => `${t(name)} ${percent(metrics[name])}`).join(' · ') : '–';
}

/* ---- what it is ---- */

function editForm(one, path) {
  const name = input({ value: one.name, maxlength: 128, required: true });
  const template = input({ value: one.template || '' });
  const description = h('textarea', { rows: 2, maxlength: 2000 }, one.description || '');
  const change = async () => {
    const body = { description: description.value };
    if (name.value.trim() !== one.name) {
      body.name = name.value.trim();
    }
    if (template.value.trim() && template.value.trim() !== (one.template || '')) {
      body.template = template.value.trim();
    }
    const changed = await call('PATCH', path, body);
    notice(t('saved'));
    const there = hash('task', changed.name);
    if (location.hash === there) {
      dispatchEvent(new Event('hashchange'));
    } else {
      location.hash = there;
    }
  };
  return h('details', {}, h('summary', {}, t('edit')), form([field(t('name'), name), field(t('template'), template, t('template_hint')),
    field(t('description'), description)], t('save'), change));
}

function aboutCard(one, current, mayAdapt, path) {
  return card(t('about'), one.description ? h('p', {}, one.description) : null, facts([[t('type'), t(one.type)],
    [t('labels'), one.labels && one.labels.length ? tags(one.labels, 40) : null],
    [t('template'), one.template ? h('code', {}, one.template) : t('usual')],
    [t('scores'), current ? score(current.metrics) : null],
    [t('model'), current && current.model ? h('code', {}, current.model) : null],
    [t('created'), time(one.created_at)], [t('changed'), time(one.updated_at)]]),
  mayAdapt ? h('div', 'row', editForm(one, path)) : null);
}

/* ---- its route ---- */

function nearOnes(similar) {
  return similar.data.map((one) => routeView(one.name, one.route, { caption: [
    one.source === 'task' ? link('task', one.name) : one.name, h('br'),
    h('span', 'soft', `${t('similarity')} ${one.similarity.toFixed(2)}${one.source === 'bank' ? ` · ${t('of_bank')}` : ''}`)] }));
}

function routeCard(one, current, similar) {
  const near = similar && similar.data.length;
  return card(t('route'), h('p', 'hint', t('route_hint')),
    h('div', 'routes mine', routeView(one.name, current && current.route, { large: true,
      caption: current && current.route && current.route.length ? one.name : t('no_route') })),
    near ? [h('h3', {}, t('nearest')), h('div', 'routes', nearOnes(similar))] : null);
}

/* ---- its versions ---- */

async function download(path, one) {
  const name = one.task.replace(/[^\p{L}\p{N}_-]/gu, '_');
  save(`${name}-${one.version}.json`, JSON.stringify(await get(`${path}/versions/${one.version}`), null, 2));
}

function versionsCard(list, path, mayAdapt, reload) {
  const roll = (number) => () => act(() => post(`${path}/current`, { version: number }), 'rolled', reload);
  const take = (text) => act(() => post(`${path}/versions`, { ...readExport(text), current: false }), 'imported_version', reload);
  return headed(t('versions'), mayAdapt ? fileButton(t('import'), '.json,application/json', take) : null,
    table([[t('version'), 'num'], t('method'), t('scores'), t('created'), t('job'), ['', 'acts']], list.map((one) => [
      String(one.version), [t(one.method || '–'), one.started_from ? h('div', 'hint', `${t('started_from')} ${one.started_from}`) : null],
      score(one.metrics), time(one.created_at), one.job ? link('job', one.job, t('job')) : '–',
      [one.current ? badge(t('current'), 'good') : mayAdapt ? rowButton('make_current', one.version, roll(one.version)) : null,
      rowButton('export', one.version, () => act(() => download(path, one)))]]), t('versions')));
}

/* ---- how well it does ---- */

export function errorTable(errors, title) {
  return table([[t('line'), 'num'], [t('text'), 'wide'], t('truth'), t('predicted'), [t('score'), 'num']], errors.map((one) => [
    String(one.row), inputText(one.input), one.label, one.predicted, percent(one.score)]), title);
}

function evaluationView(found) {
  const errors = found.errors || [];
  return [facts([...SCORES.filter((name) => typeof found[name] === 'number').map((name) => [t(name), h('strong', {}, percent(found[name]))]),
    [t('loss'), typeof found.loss === 'number' ? found.loss.toFixed(3) : null], [t('rows_count'), short(found.rows)]]),
  found.confusion ? confusionView(found.confusion) : null,
  errors.length ? [h('h3', {}, `${t('wrong_rows')} (${errors.length})`), errorTable(errors, t('wrong_rows'))] : null];
}

function evaluateCard(one, path) {
  const place = spoken();
  const take = async (text, name) => {
    fill(place, h('p', 'loading', t('loading')));
    try {
      const file = await upload(text, name);
      fill(place, evaluationView(await post(`${path}/evaluate`, { file: file.id, errors: 50 })));
    } catch (e) {
      fill(place, fault(e));
    }
  };
  return headed(t('evaluate'), fileButton(t('choose_file'), '.jsonl,.csv,.json,.txt', take),
    h('p', 'hint', t('evaluate_hint')), place);
}

/* ---- who asks it ---- */

const USED = ['requests', 'inputs', 'tokens'];

function usesView({ data }) {
  const keys = Object.entries(Object.groupBy(data, (use) => use.key));
  return keys.length ? [h('h3', {}, t('who_asks')), table([t('key'), ...USED.map((name) => [t(`used_${name}`), 'num'])],
    keys.map(([key, uses]) => [h('code', {}, key), ...USED.map((name) => short(uses.reduce((sum, use) => sum + use[name], 0)))]), t('who_asks'))] : null;
}

function usersCard(one, me, current, jobs, uses) {
  const name = encodeURIComponent(one.name);
  const mine = jobs.filter((job) => job.mp2.task === one.name).slice(0, 5);
  return card(t('asked_as'), facts([['mp2', h('code', {}, `POST /v1/predict  {"task": ${JSON.stringify(one.name)}}`)],
    ['OpenAI', current && current.model ? h('code', {}, current.model) : null],
    ['Hugging Face', h('code', {}, `/hf/${encodeURIComponent(me.tenant.name)}/${name}`)],
    ['Open Inference', h('code', {}, `/v2/models/${name}/infer`)]]),
  mine.length ? [h('h3', {}, t('its_jobs')), table([t('job'), t('state'), t('created')], mine.map((job) => [
    link('job', job.id), stateBadge(job.status), time(job.created_at)]), t('its_jobs'))] : null, uses && usesView(uses));
}

/* ---- the page ---- */

export async function task(main, name, live, me) {
  const path = taskPath(name);
  const scopes = me.key.scopes;
  const mayAdapt = scopes.includes('adapt'), mayPredict = scopes.includes('predict');
  const mayJobs = mayAdapt || scopes.includes('read') || scopes.includes('admin');
  const place = h('div');
  const one = await get(path);
  const remove = async () => {
    if (await sure(t('sure_delete'), t('delete'))) {
      await act(() => call('DELETE', path), 'deleted', () => { location.hash = '#/tasks'; });
    }
  };
  async function load() {
    const [fresh, versions, similar, jobs, uses] = await Promise.all([get(path), all(`${path}/versions`), maybe(get(`${path}/similar${query({ limit: 6 })}`)),
      mayJobs ? get('/v1/fine_tuning/jobs?limit=50') : { data: [] }, maybe(get(`${path}/usage`))]);
    if (!live.on) {
      return;
    }
    const current = versions.find((version) => version.current);
    const before = current && versions.find((version) => version.version < current.version);
    fill(place, h('div', 'grid', routeCard(fresh, current, similar),
      h('div', {}, aboutCard(fresh, current, mayAdapt, path), usersCard(fresh, me, current, jobs.data, uses))),
    versionsCard(versions, path, mayAdapt, load), mayPredict && current ? tryBox(fresh, t('try_it'), before) : null,
    mayPredict && mayAdapt && current ? evaluateCard(fresh, path) : null);
  }
  main.append(...heading(name, { crumb: ['#/tasks', t('tasks')], beside: tag(t(one.type)), actions: mayAdapt ? [
    link('teach', name, t('teach_more'), { class: 'button plain' }), button(t('delete'), remove, { class: 'danger' })] : null }), place);
  await load();
}
