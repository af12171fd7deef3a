/* job.js: one job, live: its events come as a stream, and draw the curves as they come. When it has
 * ended: what it reached, where it is wrong, whether callers get it, and the new version beside the
 * previous one and zero-shot.
 *
 * The job itself is read again when an event says that its state changed, and every two seconds for the
 * estimate. A server that was restarted takes the job up again; the stream goes on where it broke off. */
import { get, post, follow, jobPath, taskPath, all, maybe } from './api.js';
import { h, fill, card, heading, facts, grid, percent, short, duration, time, fault, act, link, button,
  stateBadge, badge, details, sure } from './dom.js';
import { chart, confusionView } from './charts.js';
import { t } from './strings.js';
import { tryBox } from './play.js';
import { errorTable } from './task.js';

const OVER = ['succeeded', 'failed', 'cancelled'];
const SHARES = /accuracy|f1|exact/;

/* ---- curves and events ---- */

/* Cross-validation learns once without each fold, then on all rows, every time from the start. */
function foldParts(events) {
  const { folds, total_steps: steps } = (events.find((one) => one.data && one.data.folds) || { data: {} }).data;
  const each = steps / (folds + 1);
  return folds ? { from: 0, to: steps, partsText: t('folds_text', { n: folds }), parts: Array.from({ length: folds + 1 }, (_, i) => ({ from: i * each, to: (i + 1) * each,
    name: i < folds ? t('fold_n', { n: i + 1 }) : t('fold_all'), mark: i < folds ? String(i + 1) : '∗' })) } : {};
}

function curves(events) {
  const points = (name) => events.filter((one) => one.data && one.type === 'metrics' && typeof one.data[name] === 'number')
    .map((one) => [one.data.step, one.data[name], one.data.fold]);
  const train = points('train_loss'), valid = points('valid_loss');
  const name = points('valid_f1').length ? 'f1' : 'accuracy', score = points(`valid_${name}`);
  const options = { xText: (v) => short(Math.round(v)), dots: true, ...foldParts(events) };
  const cards = [train.length + valid.length ? card(t('loss'), chart(t('loss'),
    [{ name: t('train_loss'), points: train }, { name: t('valid_loss'), points: valid }], { ...options, floor: 0, yText: (v) => v.toFixed(2) })) : null,
  score.length ? card(t(name), chart(t(name), [{ name: t(`valid_${name}`), points: score }],
    { ...options, floor: 0, ceiling: 1, yText: (v) => percent(v, 0) })) : null];
  return cards.some((one) => one) ? h('div', 'grid even', cards) : null;
}

function eventList(events) {
  return grid([t('when'), t('message')], events.slice(-200).reverse().map((event) => [time(event.created_at),
    h('span', { class: event.level === 'error' ? 'bad' : null }, event.message)]), t('events'));
}

/* ---- the end ---- */

function numberText(name, value) {
  return typeof value !== 'number' ? String(value) : SHARES.test(name) ? percent(value)
    : /seconds/.test(name) ? duration(value) : String(Number(value.toPrecision(4)));
}

function resultCard(result) {
  const main = ['accuracy', 'macro_f1', 'exact_match', 'f1', 'accuracy_before', 'loss'];
  const given = Object.entries(result).filter(([, value]) => ['number', 'string'].includes(typeof value));
  const first = main.map((name) => given.find((one) => one[0] === name)).filter((one) => one);
  const rest = given.filter(([name]) => !main.includes(name));
  return card(t('result'), h('dl', 'tiles', first.map(([name, value]) => h('div', 'tile',
    h('dt', {}, t(name)), h('dd', {}, h('div', 'value', numberText(name, value)))))),
  details(t('all_numbers'), facts(rest.map(([name, value]) => [t(name), t(numberText(name, value))]))));
}

/* After cross-validation these are of rows that trained, and say so. */
function wrongCards({ confusion, errors, errors_from: from }) {
  const hint = () => (from === 'training_rows' ? h('p', 'hint', t('of_trained_rows')) : null);
  return h('div', 'grid', confusion ? card(t('confusion'), hint(), confusionView(confusion)) : null,
    errors ? card(t('wrong_rows'), hint(), errors.length ? errorTable(errors, t('wrong_rows')) : h('p', 'good', t('none_wrong'))) : null);
}

/* Whether callers get what the job learnt, and the way there and back. */
function publishCard(job, task, versions, mayAdapt, reload) {
  const mine = job.mp2.version, current = task.current;
  const before = versions.find((one) => one.version < mine);
  const move = (number, said) => () => act(() => post(`${taskPath(task.name)}/current`, { version: number }), said, reload);
  const out = current === mine;
  return card(t('publish_title'), h('p', {}, badge(out ? t('published') : t('not_published'), out ? 'good' : 'warn'), ' ',
    t(out ? 'published_as' : 'published_other', { version: mine, current: current ?? '–' }), ' ', link('task', task.name)),
  mayAdapt ? h('div', 'row', out ? before ? button(t('back_to', { version: before.version }), move(before.version, 'rolled')) : null
    : h('button', { type: 'button', onclick: move(mine, 'published_now') }, t('publish', { version: mine }))) : null);
}

/* ---- the page ---- */

function controls(path, reload) {
  const one = (name, ask) => button(t(name), async () => {
    if (!ask || await sure(t(ask), t(name))) {
      await act(() => post(`${path}/${name}`, {}), `${name}_said`, reload);
    }
  }, name === 'cancel' ? { class: 'danger' } : {});
  return { pause: one('pause'), resume: one('resume'), cancel: one('cancel', 'sure_cancel') };
}

function showState(view, job, events) {
  const last = events.filter((event) => event.data && event.data.total_steps).at(-1);
  const step = last ? last.data.step : 0, steps = last ? last.data.total_steps : 0;
  const over = OVER.includes(job.status);
  const left = job.estimated_finish ? job.estimated_finish - Date.now() / 1000 : NaN;
  view.bar.hidden = over;
  view.bar.value = steps ? step / steps : 0;
  fill(view.badge, stateBadge(job.status));
  fill(view.facts, facts([[t('task'), job.status === 'succeeded' ? link('task', job.mp2.task) : job.mp2.task],
    [t('method'), t(job.mp2.method || 'route')], [t('step'), steps && !over ? `${step} / ${steps}` : null],
    [t('left'), !over && job.status === 'running' && left > 0 ? duration(left) : null],
    [t('created'), time(job.created_at)], [t('finished'), job.finished_at ? time(job.finished_at) : null],
    [t('trained'), job.trained_tokens ? `${short(job.trained_tokens)} ${t('tokens')}` : null], [t('seed'), String(job.seed)]], true));
  view.controls.cancel.hidden = over || !view.mayAdapt;
  view.controls.pause.hidden = !view.mayAdapt || !['running', 'queued'].includes(job.status);
  view.controls.resume.hidden = !view.mayAdapt || job.status !== 'paused';
}

async function showEnd(view, job, live) {
  const task = job.status === 'succeeded' ? await maybe(get(taskPath(job.mp2.task))) : null;
  const versions = task ? await all(`${taskPath(task.name)}/versions`) : [];
  if (!live.on) {
    return;
  }
  const mine = versions.find((one) => one.version === job.mp2.version);
  const before = versions.find((one) => (mine && mine.current ? one.version < mine.version : one.current));
  fill(view.end, job.error && job.error.message ? fault({ message: job.error.message }) : null,
    job.mp2.result ? resultCard(job.mp2.result) : null,
    task && mine ? publishCard(job, task, versions, view.mayAdapt, () => showEnd(view, job, live)) : null,
    job.mp2.result ? wrongCards(job.mp2.result) : null,
    task && mine && view.mayPredict ? tryBox(task, t('try_it'), before, mine) : null);
}

/* The events as they come. A server without streams is asked for the list again and again. */
async function watch(path, live, take) {
  const whole = await follow(`${path}/events?stream=true`, live.signal, (event) => take([event]));
  if (!whole && live.on) {
    live.every(1000, async () => take((await all(`${path}/events`)).reverse(), true));
  }
}

export async function job(main, id, live, me) {
  const path = jobPath(id);
  let one = await get(path);
  let events = [], ended = false, drawing = 0;
  const view = { bar: h('progress', { max: '1', value: '0', 'aria-label': t('progress') }), badge: h('span', { 'aria-live': 'polite' }),
    facts: h('div'), end: h('div'), mayAdapt: me.key.scopes.includes('adapt'), mayPredict: me.key.scopes.includes('predict') };
  const drawn = h('div'), log = h('div');
  const refresh = async () => {
    one = await get(path);
    if (live.on) {
      await show();
    }
  };
  const draw = () => {
    fill(drawn, curves(events));
    fill(log, eventList(events));
    showState(view, one, events);
  };
  const soon = () => { drawing = drawing || setTimeout(() => { drawing = 0; draw(); }, 100); };
  async function show() {
    soon();
    if (OVER.includes(one.status) && !ended) {
      ended = true;
      await showEnd(view, one, live);
    }
  }
  view.controls = controls(path, refresh);
  main.append(...heading(`${t('job')} ${id}`, { crumb: ['#/teach', t('teach')], beside: view.badge,
    actions: [view.controls.pause, view.controls.resume, view.controls.cancel] }),
  h('section', 'card', view.facts, view.bar), drawn, view.end,
  card(t('events'), log));
  draw();
  await show();
  watch(path, live, (fresh, whole) => {
    events = whole ? fresh : [...events, ...fresh];
    soon();
    if (fresh.some((event) => event.type !== 'metrics') && !ended) {
      refresh().catch(() => {}); /* the next reading will tell */
    }
  });
  live.every(2000, async () => {
    if (!ended) {
      await refresh();
    }
  });
}
