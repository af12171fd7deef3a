/* overview.js: one glance for the one who runs the server: is it well, how loaded, how far from its
 * limits.
 *
 * Rates are differences of two readings of /metrics; quantiles come from the buckets that filled in
 * the last minute, or since the start when that was quiet. What a limit is comes from
 * /v1/admin/stats, which only an admin's key may read. */
import { get, maybe, metrics } from './api.js';
import { h, fill, card, heading, badge, stateBadge, grid, table, time, short, bytes, duration, link, loading } from './dom.js';
import { chart, meters, spark } from './charts.js';
import { t, named } from './strings.js';

const EVERY = 2000;
const KEEP = 91; /* readings: three minutes */
const WINDOW = 30; /* readings that quantiles look back */

/* ---- numbers ---- */

const fits = (sample, want) => Object.entries(want).every(([key, value]) => sample.labels[key] === value);

function total(samples, name, want = {}) {
  return samples.filter((one) => one.name === name && fits(one, want))
    .reduce((sum, one) => sum + one.value, 0);
}

/* Cumulative buckets [[bound, count], …] of what `after` has over `before`. */
function buckets(after, before, name, want) {
  const sums = new Map();
  for (const [samples, sign] of [[after, 1], [before, -1]]) {
    for (const one of samples) {
      if (one.name === `${name}_bucket` && fits(one, want)) {
        const bound = one.labels.le === '+Inf' ? Infinity : Number(one.labels.le);
        sums.set(bound, (sums.get(bound) || 0) + sign * one.value);
      }
    }
  }
  return [...sums].sort((a, b) => a[0] - b[0]);
}

/* Where the q-th of them lies, spread evenly inside its bucket. */
function quantile(list, q) {
  const all = list.length ? list.at(-1)[1] : 0;
  let below = 0, from = 0;
  for (const [bound, count] of list) {
    if (all > 0 && count >= q * all) {
      const share = (q * all - below) / Math.max(count - below, 1e-9);
      return bound === Infinity ? from : from + (bound - from) * share;
    }
    below = count;
    from = bound;
  }
  return NaN;
}

function quantiles(now, old, name, want) {
  let list = buckets(now, old, name, want);
  if (!list.length || list.at(-1)[1] <= 0) {
    list = buckets(now, [], name, want);
  }
  return [0.5, 0.95, 0.99].map((q) => quantile(list, q));
}

function average(now, old, name) {
  const n = total(now, `${name}_count`) - total(old, `${name}_count`);
  const from = n > 0 ? old : [];
  return (total(now, `${name}_sum`) - total(from, `${name}_sum`)) /
    (total(now, `${name}_count`) - total(from, `${name}_count`));
}

const CLASSES = [['2', 'answered'], ['4', 'refused_4'], ['5', 'failed_5']];
const ofClass = (samples, digit) => samples.filter((one) => one.name === 'mp2_requests_total' &&
  String(one.labels.code).startsWith(digit)).reduce((sum, one) => sum + one.value, 0);

/* [[seconds ago, per second], …] of a growing number. A restart starts it from nothing. */
function rates(history, count) {
  const end = history.at(-1).at, list = [];
  for (let i = 1; i < history.length; i++) {
    const gone = (history[i].at - history[i - 1].at) / 1000;
    list.push([(history[i].at - end) / 1000, Math.max(0, count(history[i].samples) - count(history[i - 1].samples)) / gone]);
  }
  return list;
}

const ms = (seconds) => (Number.isFinite(seconds) ? `${short(seconds * 1000)} ms` : '–');

/* ---- pieces ---- */

function tile(name, value, more, values) {
  return h('div', 'tile', h('dt', {}, name), h('dd', {}, h('div', 'value', value),
    more ? h('div', 'more', more) : null, values && values.length > 1 ? spark(values.map((p) => p[1])) : null));
}

function tiles(history, old, stats) {
  const now = history.at(-1).samples;
  const of = (name) => (samples) => total(samples, name);
  const requests = rates(history, of('mp2_requests_total'));
  const inputs = rates(history, of('mp2_input_tokens_count')), tokens = rates(history, of('mp2_input_tokens_sum'));
  const level = (name) => history.map((one) => [0, total(one.samples, name)]);
  const last = (list) => short(list.length ? list.slice(-5).reduce((sum, p) => sum + p[1], 0) / Math.min(list.length, 5) : NaN);
  const [p50, , p99] = quantiles(now, old, 'mp2_request_duration_seconds', { type: 'predict' });
  return h('dl', 'tiles',
    tile(t('requests_s'), last(requests), `${short(total(now, 'mp2_requests_total'))} ${t('in_all')}`, requests),
    tile(t('tokens_s'), last(tokens), `${last(inputs)} ${t('inputs_s')}`, tokens),
    tile(t('p99'), ms(p99), `p50 ${ms(p50)}`),
    tile(t('queue'), short(total(now, 'mp2_queue_requests')), `${short(total(now, 'mp2_queue_tokens'))} ${t('tokens')}`, level('mp2_queue_requests')),
    tile(t('jobs_running'), short(total(now, 'mp2_jobs_running')), `${stats ? `${stats.jobs.queued} ${t('queued')}, ` : ''}${short(total(now, 'mp2_jobs_ended_total', { outcome: 'succeeded' }))} ${t('succeeded')}, ${short(total(now, 'mp2_jobs_ended_total', { outcome: 'failed' }))} ${t('failed')}`),
    tile(t('memory'), bytes(total(now, 'process_resident_memory_bytes')), `${short(total(now, 'mp2_tasks'))} ${t('tasks_kept')}`, level('process_resident_memory_bytes')));
}

function latencyCard(now, old) {
  const rows = [['whole', 'mp2_request_duration_seconds', { type: 'predict' }],
    ['in_queue', 'mp2_stage_duration_seconds', { stage: 'queue' }],
    ['inference', 'mp2_stage_duration_seconds', { stage: 'infer' }]];
  return card(t('latency'), grid([t('stage'), ['p50', 'num'], ['p95', 'num'], ['p99', 'num']],
    rows.map(([name, metric, want]) => [t(name), ...quantiles(now, old, metric, want).map(ms)]), t('latency')),
  h('p', 'hint', t('latency_hint')));
}

function batchCard(now, old) {
  const rows = [['batch_inputs', 'mp2_batch_sequences'], ['batch_tasks', 'mp2_batch_tasks'], ['tokens', 'mp2_batch_tokens']];
  return card(t('batches'), grid([t('per_batch'), [t('mean'), 'num'], ['p50', 'num'], ['p99', 'num']],
    rows.map(([name, metric]) => {
      const [p50, , p99] = quantiles(now, old, metric, {});
      return [t(name), short(average(now, old, metric)), short(Math.ceil(p50)), short(Math.ceil(p99))];
    }), t('batches')), h('p', 'hint', t('batches_hint')));
}

function reasonText(reason) {
  return reason.startsWith('quota_') ? `${t('quotas')}: ${named('quota', reason.slice(6))}` : named('reject', reason);
}

function refusedCard(history) {
  const now = history.at(-1).samples;
  const refused = now.filter((one) => one.name === 'mp2_rejected_total' && one.value > 0)
    .sort((a, b) => b.value - a.value);
  const rate = (reason) => rates(history.slice(-WINDOW), (samples) => total(samples, 'mp2_rejected_total', { reason }));
  const mean = (list) => list.reduce((sum, p) => sum + p[1], 0) / Math.max(list.length, 1);
  return card(t('refused'), refused.length ? grid([t('reason'), [t('per_minute'), 'num'], [t('in_all'), 'num']],
    refused.map((one) => [reasonText(one.labels.reason), short(mean(rate(one.labels.reason)) * 60), short(one.value)]), t('refused'))
    : h('p', 'soft', t('none_refused')));
}

/* The nearest limit first. */
function limitsCard(stats) {
  const items = Object.entries((stats && stats.limits) || {}).map(([name, { used, limit }]) => {
    const text = /bytes/.test(name) ? bytes : short;
    return { label: named('limit', name), value: used, limit, text: `${text(used)} / ${text(limit)}` };
  }).sort((a, b) => b.value / b.limit - a.value / a.limit).slice(0, 10);
  return items.length ? card(t('limits'), meters(items)) : null;
}

function trafficCard(history) {
  const series = CLASSES.map(([digit, name]) => ({ name: t(name), points: rates(history, (samples) => ofClass(samples, digit)) }))
    .filter((one, i) => i === 0 || one.points.some((p) => p[1] > 0));
  return card(t('requests_s'), history.length > 2 ? chart(t('requests_s'), series,
    { floor: 0, from: Math.min(-60, series[0].points[0]?.[0] ?? 0), to: 0, xText: (v) => `${Math.round(v)} s` }) : loading());
}

function statusLine(version, ready, up) {
  return [badge(ready ? t('ready') : t('not_ready'), ready ? 'good' : 'bad'),
    h('span', {}, `${t('up')} ${duration(up)}`),
    h('span', {}, `mp2 ${version.version}`),
    h('span', {}, `${t('model')} ${version.model.name} · ${t('bank')} ${version.bank.name}`),
    h('span', {}, `${version.compute.kernel} × ${version.compute.threads}`)];
}

export function jobTable(jobs) {
  return table([t('job'), t('task'), t('state'), t('method'), t('created')], jobs.map((one) => [
    link('job', one.id, `${one.id.slice(0, 13)}…`, { title: one.id }),
    one.mp2.task || '–', stateBadge(one.status), t(one.mp2.method || 'route'), time(one.created_at)]), t('jobs'));
}

/* ---- the page ---- */

export async function overview(main, argument, live, me) {
  const status = h('div', 'status'), place = h('div'), jobs = h('div');
  const mayReadJobs = me.key.scopes.some((scope) => ['read', 'adapt', 'admin'].includes(scope));
  const isAdmin = me.key.scopes.includes('admin');
  const history = [];
  let shown = '';
  main.append(...heading(t('overview')), status, place, jobs);
  const read = async () => {
    const [samples, version, ready, stats, list] = await Promise.all([metrics(), get('/version'),
      get('/readyz').then(() => true, () => false), isAdmin ? maybe(get('/v1/admin/stats')) : null,
      mayReadJobs ? get('/v1/fine_tuning/jobs?limit=6') : null]);
    history.push({ at: Date.now(), samples });
    history.splice(0, history.length - KEEP);
    if (!live.on) {
      return;
    }
    const now = samples, old = history[Math.max(0, history.length - 1 - WINDOW)].samples;
    fill(status, statusLine(version, ready, version.uptime_seconds));
    fill(place, tiles(history, old, stats), h('div', 'grid even', trafficCard(history), latencyCard(now, old)),
      h('div', 'grid', h('div', {}, batchCard(now, old), refusedCard(history)), limitsCard(stats)));
    if (list && JSON.stringify(list.data) !== shown) { /* else a focused link would be lost */
      shown = JSON.stringify(list.data);
      fill(jobs, list.data.length ? card(t('latest_jobs'), jobTable(list.data)) : null);
    }
  };
  await read();
  live.every(EVERY, async () => {
    if (history.at(-1).at + EVERY / 2 < Date.now() && !document.hidden) {
      await read();
    }
  });
}
