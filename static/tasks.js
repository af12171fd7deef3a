/* tasks.js: the list of tasks, and the page of one. */
import { call, get, post, query, taskPath } from './api.js';
import { h, fill, field, card, table, bars, percent, time, fault, notice, save } from './dom.js';
import { t } from './strings.js';
import { tryBox } from './play.js';

const PAGE = 50;

export const taskLink = (name) => h('a', { href: `#/task/${encodeURIComponent(name)}` }, name);

function labelTags(labels) {
  return (labels || []).slice(0, 12).map((label) => h('span', { class: 'tag' }, label));
}

export async function tasks(main, argument, live) {
  const search = h('input', { type: 'search', autocomplete: 'off' });
  const place = h('div', {});
  const before = []; /* where earlier pages began */
  let after = null, asked = 0;
  async function load() {
    const mine = ++asked;
    try {
      const list = await get(`/v1/tasks${query({ limit: PAGE, q: search.value.trim(), after })}`);
      if (mine !== asked || !live.on) {
        return;
      }
      const step = (name, enabled, go) => h('button', { type: 'button', class: 'plain', disabled: !enabled, onclick: () => { go(); load(); } }, name);
      fill(place, list.data.length ? table([t('name'), t('type'), t('labels'), t('version'), t('changed')],
        list.data.map((one) => [taskLink(one.name), t(one.type), labelTags(one.labels), one.current === null ? '–' : String(one.current), time(one.updated_at)]), t('tasks'))
        : h('p', {}, t('no_tasks')),
      h('div', { class: 'row' },
        step(t('previous'), before.length > 0, () => { after = before.pop(); }),
        step(t('next'), list.has_more, () => { before.push(after); after = list.last_id; })));
    } catch (e) {
      fill(place, fault(e));
    }
  }
  let typing = 0;
  search.addEventListener('input', () => {
    clearTimeout(typing);
    typing = setTimeout(() => { before.length = 0; after = null; load(); }, 250);
  });
  main.append(h('h1', {}, t('tasks')), h('div', { class: 'card' }, field(t('search'), search), place));
  await load();
}

const sigmoid = (r) => 1 / (1 + Math.exp(-r));

/* A route as the weights w = sigmoid(r) of its modules: bars, or a heat map of layers × modules. */
export function routeView(route, modules) {
  if (!route || route.length === 0) {
    return h('p', { class: 'hint' }, t('no_route'));
  }
  if (route.length <= modules) {
    return bars(route.map((r, i) => ({ label: `${t('module')} ${i + 1}`, value: sigmoid(r), text: sigmoid(r).toFixed(3) })));
  }
  const heat = h('div', { class: 'heat', role: 'img', 'aria-label': t('heat') });
  heat.style.gridTemplateColumns = `repeat(${modules}, 1fr)`;
  route.forEach((r, i) => {
    const cell = h('span', { title: `${t('layer')} ${Math.floor(i / modules) + 1}, ${t('module')} ${i % modules + 1}: ${sigmoid(r).toFixed(3)}` });
    cell.style.opacity = 0.1 + 0.9 * sigmoid(r);
    heat.append(cell);
  });
  return heat;
}

function score(metrics) {
  const known = ['accuracy', 'macro_f1', 'exact_match', 'em', 'f1'];
  const shown = known.filter((name) => metrics && typeof metrics[name] === 'number');
  return shown.length ? shown.map((name) => `${t(name)} ${percent(metrics[name])}`).join(', ') : '–';
}

function versionRows(versions, path, mayAdapt, reload) {
  const roll = async (number) => {
    try {
      await post(`${path}/current`, { version: number });
      notice(t('rolled'));
      reload();
    } catch (e) {
      notice(e.message);
    }
  };
  const download = async (one) => {
    try {
      save(`${one.task.replace(/[^\p{L}\p{N}_-]/gu, '_')}-${one.version}.json`, JSON.stringify(await get(`${path}/versions/${one.version}`), null, 2));
    } catch (e) {
      notice(e.message);
    }
  };
  return versions.map((one) => [`${one.version}${one.current ? ` (${t('current')})` : ''}`, one.method || '–', score(one.metrics), time(one.created_at),
    one.job ? h('a', { href: `#/job/${encodeURIComponent(one.job)}` }, t('job')) : '–',
    [h('button', { type: 'button', class: 'plain', 'aria-label': `${t('export')} ${one.version}`, onclick: () => download(one) }, t('export')), ' ',
      one.current || !mayAdapt ? null : h('button', { type: 'button', class: 'plain', 'aria-label': `${t('make_current')} ${one.version}`, onclick: () => roll(one.version) }, t('make_current'))]
      .filter((cell) => cell !== null)]);
}

export async function task(main, name, live, me) {
  const path = taskPath(name);
  const place = h('div', {});
  const mayAdapt = me.key.scopes.includes('adapt');
  main.append(h('h1', {}, name), place);
  async function load() {
    const [one, list] = await Promise.all([get(path), get(`${path}/versions?limit=100`)]);
    if (!live.on) {
      return;
    }
    const current = list.data.find((version) => version.current);
    const remove = async () => {
      if (confirm(t('sure_delete'))) {
        try {
          await call('DELETE', path);
          location.hash = '#/tasks';
        } catch (e) {
          notice(e.message);
        }
      }
    };
    fill(place, h('div', { class: 'grid' },
      card(t('about'), table([t('field'), t('value')], [[t('type'), t(one.type)], [t('labels'), labelTags(one.labels)],
        [t('template'), one.template ? h('code', {}, one.template) : t('usual')], [t('description'), one.description || '–'],
        [t('model'), current && current.model ? h('code', {}, current.model) : '–'], [t('changed'), time(one.updated_at)]], t('about')),
      mayAdapt ? h('div', { class: 'row' }, h('button', { type: 'button', class: 'danger', onclick: remove }, t('delete'))) : null),
      card(t('route'), h('p', { class: 'hint' }, t('route_hint')), routeView(current && current.route, 8))),
    card(t('versions'), table([t('version'), t('method'), t('scores'), t('created'), t('job'), t('do')],
      versionRows(list.data, path, mayAdapt, load), t('versions'))),
    me.key.scopes.includes('predict') ? tryBox(one) : null);
  }
  await load();
}
