/* tasks.js: the list of tasks. Search, kind, order and page are settings in the hash, so that a page
 * can be kept, sent and come back to; a page begins after a name, so a million tasks page as fast as
 * ten. */
import { get, post, query, taskPath } from './api.js';
import { h, fill, field, heading, input, select, table, tags, time, button, fileButton, form, fault, notice,
  act, hash, link, empty, loading, rowButton, spoken } from './dom.js';
import { t } from './strings.js';

export const TYPES = ['classification', 'pair', 'choice', 'extractive'];
const SORTS = ['name', '-name', '-updated', '-created', 'created'];
const SIZES = ['25', '50', '100'];

export const labelled = (type) => type === 'classification' || type === 'pair';

export const splitLabels = (text) => text.split(/[,，、\n]/).map((one) => one.trim()).filter((one) => one);

/* ---- making one ---- */

/* The version that a file holds. */
export function readExport(text) {
  try {
    const from = JSON.parse(text);
    if (from.type && from.task) {
      return from;
    }
  } catch { /* not even JSON */ }
  throw new Error(t('not_an_export'));
}

/* A task from an exported version: its form under a new name, then the version itself. */
async function importTask(text, name) {
  const from = readExport(text);
  const wanted = { name: name || from.task, type: from.type };
  for (const key of ['labels', 'template']) {
    if (from[key]) {
      wanted[key] = from[key];
    }
  }
  const made = await post('/v1/tasks', wanted);
  await post(`${taskPath(made.name)}/versions`, { ...from, current: true });
  return made.name;
}

function newTask() {
  const name = input({ required: true, maxlength: 128 }), labels = input({ required: true });
  const template = input({ placeholder: '{text}' });
  const kind = select(TYPES.map((type) => [type, t(type)]), 'classification');
  const labelField = field(t('labels'), labels, t('labels_hint'));
  const templateField = field(t('template'), template, t('template_hint'));
  const change = () => {
    labelField.hidden = templateField.hidden = !labelled(kind.value);
    labels.required = labelled(kind.value);
  };
  kind.addEventListener('change', change);
  const wrong = h('div');
  const make = async () => {
    const body = { name: name.value.trim(), type: kind.value };
    if (labelled(kind.value)) {
      body.labels = splitLabels(labels.value);
      if (template.value.trim()) {
        body.template = template.value.trim();
      }
    }
    const made = await post('/v1/tasks', body);
    location.hash = hash('task', made.name);
  };
  const take = async (text) => {
    try {
      const made = await importTask(text, name.value.trim());
      notice(t('imported'));
      location.hash = hash('task', made);
    } catch (e) {
      fill(wrong, fault(e));
    }
  };
  return h('details', 'card', h('summary', {}, t('new_task')), h('p', 'hint', t('new_task_hint')),
    form([h('div', 'fields', field(t('name'), name), field(t('type'), kind)), labelField, templateField], t('make_task'), make,
      { after: fileButton(t('import_task'), '.json,application/json', take) }), wrong);
}

/* ---- what can be undone ---- */

function deletedTasks(list, reload) {
  const restore = (name) => act(() => post(`${taskPath(name)}/restore`, {}), 'restored', reload);
  return h('details', 'card', h('summary', {}, `${t('deleted_tasks')} (${list.length})`),
    table([t('name'), t('type'), t('changed'), ['', 'acts']], list.map((one) => [one.name, t(one.type), time(one.deleted_at || one.updated_at),
      rowButton('restore', one.name, () => restore(one.name))]), t('deleted_tasks')));
}

/* ---- the list ---- */

function rows(list) {
  return table([t('name'), t('type'), t('labels'), [t('version'), 'num'], t('created'), t('changed')],
    list.data.map((one) => [h('strong', {}, link('task', one.name)), t(one.type), tags(one.labels, 6),
      one.current === null ? '–' : String(one.current), time(one.created_at), time(one.updated_at)]), t('tasks'));
}

export async function tasks(main, argument, live, me, settings) {
  const state = { q: '', type: '', sort: 'name', size: '50', ...settings };
  const earlier = []; /* where the pages before this one began */
  const mayAdapt = me.key.scopes.includes('adapt');
  const search = input({ type: 'search', value: state.q, placeholder: t('search_hint') });
  const type = select([['', t('every_type')], ...TYPES.map((one) => [one, t(one)])], state.type);
  const sort = select(SORTS.map((one) => [one, t(`sort_${one}`)]), state.sort);
  const size = select(SIZES.map((one) => [one, one]), state.size, { 'aria-label': t('page_size') });
  const place = spoken(), gone = h('div');
  let asked = 0, page = 1;

  async function load() {
    const mine = ++asked;
    history.replaceState(null, '', `#/tasks${query({ q: state.q, type: state.type,
      sort: state.sort === 'name' ? '' : state.sort, size: state.size === '50' ? '' : state.size, after: state.after })}`);
    let list;
    try {
      list = await get(`/v1/tasks${query({ limit: state.size, q: state.q, type: state.type, sort: state.sort, after: state.after })}`);
    } catch (e) {
      fill(place, fault(e, load));
      return;
    }
    if (mine !== asked || !live.on) {
      return;
    }
    const turn = (name, can, go) => button(name, () => { go(); load(); }, { disabled: !can });
    const searched = state.q || state.type || state.after;
    fill(place, list.data.length ? rows(list) : searched ? empty(t('no_tasks'), t('no_tasks_hint'))
      : empty(t('no_tasks_yet'), t('no_tasks_yet_hint'), mayAdapt ? h('a', { class: 'button', href: '#/teach' }, t('teach_one')) : null),
    h('div', 'row between', h('div', 'row',
      turn(t('previous'), earlier.length > 0 || state.after, () => { state.after = earlier.pop(); page = Math.max(1, page - 1); }),
      turn(t('next'), list.has_more, () => { earlier.push(state.after); state.after = list.last_id; page++; }),
      h('span', 'soft', `${t('page')} ${page}`)), h('div', 'row', h('span', 'soft', t('page_size')), size)));
  }
  async function loadGone() {
    const list = mayAdapt ? await get('/v1/tasks?deleted=true&limit=50').catch(() => null) : null;
    const real = list ? list.data.filter((one) => one.deleted_at) : [];
    fill(gone, real.length ? deletedTasks(real, () => { load(); loadGone(); }) : null);
  }
  const change = (name, control) => () => {
    state[name] = control.value.trim();
    state.after = undefined;
    earlier.length = 0;
    page = 1;
    load();
  };
  let typing = 0;
  search.addEventListener('input', () => { clearTimeout(typing); typing = setTimeout(change('q', search), 250); });
  type.addEventListener('change', change('type', type));
  sort.addEventListener('change', change('sort', sort));
  size.addEventListener('change', change('size', size));
  fill(place, loading());
  main.append(...heading(t('tasks'), { actions: mayAdapt ? h('a', { class: 'button', href: '#/teach' }, t('teach_one')) : null }),
    h('section', 'card', h('div', 'toolbar', field(t('search'), search), field(t('type'), type), field(t('sort'), sort)), place),
    mayAdapt ? newTask() : '', gone);
  await load();
  await loadGone();
}
