/* overview.js: one glance for the one who runs the server. Rates are differences of two readings of
 * /metrics; quantiles come from the buckets that filled in the last half minute, or since the start. */
import { get, metrics } from './api.js';
import { h, fill, card, chart, short, table, time, fault } from './dom.js';
import { t } from './strings.js';

const EVERY = 2000;
const KEEP = 60;

function total(samples, name, want = {}) {
  let sum = 0;
  for (const one of samples) {
    if (one.name === name && Object.entries(want).every(([key, value]) => one.labels[key] === value)) {
      sum += one.value;
    }
  }
  return sum;
}

/* Cumulative buckets [[bound, count], …] of what `after` has over `before`. */
function buckets(after, before, name, want) {
  const sums = new Map();
  for (const [samples, sign] of [[after, 1], [before, -1]]) {
    for (const one of samples) {
      if (one.name === `${name}_bucket` && Object.entries(want).every(([key, value]) => one.labels[key] === value)) {
        const bound = one.labels.le === '+Inf' ? Infinity : Number(one.labels.le);
        sums.set(bound, (sums.get(bound) || 0) + sign * one.value);
      }
    }
  }
  return [...sums].sort((a, b) => a[0] - b[0]);
}

function quantile(list, q) {
  const all = list.length ? list[list.length - 1][1] : 0;
  let below = 0, from = 0;
  for (const [bound, count] of list) {
    if (all > 0 && count >= q * all) {
      return bound === Infinity ? from : from + (bound - from) * ((q * all - below) / Math.max(count - below, 1e-9));
    }
    below = count;
    from = bound;
  }
  return NaN;
}

const ms = (seconds) => Number.isFinite(seconds) ? `${short(seconds * 1000)} ms` : '–';

function tile(name, value, more) {
  return h('div', { class: 'tile' }, h('dt', {}, name), h('dd', {}, value, more ? h('div', { class: 'more' }, more) : null));
}

function latencyRow(now, old, name, metric, want) {
  let list = buckets(now, old, metric, want);
  if (!list.length || list[list.length - 1][1] === 0) {
    list = buckets(now, [], metric, want);
  }
  return [name, ...[0.5, 0.95, 0.99].map((q) => ms(quantile(list, q)))];
}

function average(now, old, name) {
  const n = total(now, `${name}_count`) - total(old, `${name}_count`);
  return n > 0 ? (total(now, `${name}_sum`) - total(old, `${name}_sum`)) / n
    : total(now, `${name}_sum`) / total(now, `${name}_count`);
}

function draw(place, history, version, ready) {
  const { at, samples: now } = history[history.length - 1];
  const last = history.length > 1 ? history[history.length - 2] : null;
  const old = history[Math.max(0, history.length - 16)].samples;
  const rate = (name, want) => last ? (total(now, name, want) - total(last.samples, name, want)) / ((at - last.at) / 1000) : 0;
  const rates = [];
  for (let i = 1; i < history.length; i++) {
    const gone = (history[i].at - history[i - 1].at) / 1000;
    rates.push([(history[i].at - at) / 1000, (total(history[i].samples, 'mp2_requests_total') - total(history[i - 1].samples, 'mp2_requests_total')) / gone]);
  }
  const refused = now.filter((one) => one.name === 'mp2_rejected_total' && one.value > 0);
  fill(place,
    h('dl', { class: 'tiles' },
      tile(t('state'), h('span', { class: ready ? 'good' : 'bad' }, ready ? t('ready') : t('not_ready')), `${t('up')} ${Math.floor(version.uptime_seconds / 60)} min`),
      tile(t('requests_s'), short(rate('mp2_requests_total')), `${short(total(now, 'mp2_requests_total'))} ${t('in_all')}`),
      tile(t('inputs_s'), short(rate('mp2_input_tokens_count')), `${short(rate('mp2_batch_tokens_sum'))} ${t('tokens_s')}`),
      tile(t('batch_size'), short(average(now, old, 'mp2_batch_sequences')), `${short(average(now, old, 'mp2_batch_tokens'))} ${t('tokens')}`),
      tile(t('batch_tasks'), short(average(now, old, 'mp2_batch_tasks'))),
      tile(t('queue'), short(total(now, 'mp2_queue_requests')), `${short(total(now, 'mp2_queue_tokens'))} ${t('tokens')}`),
      tile(t('tasks'), short(total(now, 'mp2_tasks')), `${short(total(now, 'mp2_keys'))} ${t('keys')}`),
      tile(t('jobs_running'), short(total(now, 'mp2_jobs_running')), `${short(total(now, 'mp2_jobs_ended_total', { outcome: 'succeeded' }))} ${t('succeeded')}, ${short(total(now, 'mp2_jobs_ended_total', { outcome: 'failed' }))} ${t('failed')}`),
      tile(t('memory'), `${short(total(now, 'process_resident_memory_bytes') / 1048576)} MiB`, `${short(total(now, 'mp2_connections'))} ${t('connections')}`)),
    h('div', { class: 'grid' },
      card(t('requests_s'), chart(t('requests_s'), [{ name: t('last_two_minutes'), points: rates }], 0)),
      card(t('latency'), table([t('stage'), 'p50', 'p95', 'p99'], [
        latencyRow(now, old, t('whole'), 'mp2_request_duration_seconds', { type: 'predict' }),
        latencyRow(now, old, t('in_queue'), 'mp2_stage_duration_seconds', { stage: 'queue' }),
        latencyRow(now, old, t('inference'), 'mp2_stage_duration_seconds', { stage: 'infer' })], t('latency')),
      h('h3', {}, t('refused')), refused.length ? table([t('reason'), t('count')], refused.map((one) => [one.labels.reason, short(one.value)]), t('refused')) : h('p', { class: 'hint' }, t('none')))),
    card(t('server'), h('p', { class: 'hint' }, `mp2 ${version.version} · ${version.model.name} · ${version.bank.name} · ${version.compute.kernel} × ${version.compute.threads} · ${version.libraries.http}`)));
}

export function jobTable(jobs) {
  return table([t('job'), t('task'), t('state'), t('created')], jobs.map((one) => [
    h('a', { href: `#/job/${encodeURIComponent(one.id)}` }, one.id), one.mp2.task || '–', t(one.status), time(one.created_at)]), t('jobs'));
}

export async function overview(main, argument, live, me) {
  const place = h('div', {}), wrong = h('div', {}), jobs = h('div', {});
  const history = [];
  let shown = '';
  main.append(h('h1', {}, t('overview')), wrong, place, jobs);
  const mayReadJobs = me.key.scopes.some((scope) => ['read', 'adapt', 'admin'].includes(scope));
  live.every(EVERY, async () => {
    try {
      const [samples, version, ready] = await Promise.all([metrics(), get('/version'), get('/readyz').then(() => true, () => false)]);
      history.push({ at: Date.now(), samples });
      history.splice(0, history.length - KEEP);
      const list = mayReadJobs ? (await get('/v1/fine_tuning/jobs?limit=5')).data : [];
      if (live.on) {
        fill(wrong);
        draw(place, history, version, ready);
        if (JSON.stringify(list) !== shown) { /* else a focused link would be lost */
          shown = JSON.stringify(list);
          fill(jobs, list.length ? card(t('latest_jobs'), jobTable(list)) : null);
        }
      }
    } catch (e) {
      if (live.on) {
        fill(wrong, fault({ message: `${t('unreachable')} ${e.message}` }));
      }
    }
  });
}
