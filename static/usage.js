/* usage.js: what this key is, how much of its quotas is left, and what its tenant used, day by day. */
import { get, maybe, query } from './api.js';
import { h, fill, card, heading, facts, field, select, table, tags, short, duration, empty, details, loading } from './dom.js';
import { columns, meters } from './charts.js';
import { t, named } from './strings.js';

const COUNTS = ['requests', 'inputs', 'tokens', 'jobs', 'trained_tokens'];
const SPANS = ['7', '30', '90'];

function quotaMeters(quotas) {
  const bounded = Object.entries(quotas || {}).filter(([, one]) => typeof one.limit === 'number');
  return bounded.length ? meters(bounded.map(([name, one]) => ({ label: named('quota', name),
    value: one.limit - one.remaining, limit: one.limit,
    text: `${short(one.limit - one.remaining)} / ${short(one.limit)}` }))) : h('p', 'soft', t('no_quotas'));
}

/* A request must fit into both. */
function quotaCard(me) {
  return card(t('quotas'), h('h3', {}, `${t('tenant')} ${me.tenant.name}`), quotaMeters(me.quotas),
    h('h3', {}, t('this_key')), quotaMeters(me.key.quotas));
}

/* Every day of the span, also those without use. */
function daysOf(list, span) {
  const known = new Map(list.map((one) => [one.day, one])), days = [];
  for (let i = span - 1; i >= 0; i--) {
    const day = new Date(Date.now() - i * 86400e3).toISOString().slice(0, 10);
    days.push({ day, ...Object.fromEntries(COUNTS.map((name) => [name, 0])), ...known.get(day) });
  }
  return days;
}

export function usageView(list, span) {
  const days = daysOf(list, span);
  const sum = (name) => days.reduce((all, one) => all + (one[name] || 0), 0);
  if (!list.length) {
    return empty(t('no_usage'), t('no_usage_hint'));
  }
  return [h('div', 'grid three', COUNTS.filter((name) => sum(name) > 0 || name === 'requests').map((name) =>
    h('div', {}, h('h3', {}, `${t(`used_${name}`)}: ${short(sum(name))}`), columns(t(`used_${name}`), days.map((one) => [one.day, one[name] || 0])),
      h('div', 'row between hint', h('span', {}, days[0].day), h('span', {}, days.at(-1).day))))),
  details(t('day_by_day'), table([t('day'), ...COUNTS.map((name) => [t(`used_${name}`), 'num'])],
    list.map((one) => [one.day, ...COUNTS.map((name) => short(one[name] || 0))]), t('day_by_day')))];
}

export async function usage(main, argument, live) {
  const me = await get('/v1/me');
  const place = h('div', {}, loading());
  const span = select(SPANS.map((one) => [one, t('days_n', { n: one })]), '30');
  const load = async () => {
    const list = await maybe(get(`/v1/usage${query({ days: span.value })}`));
    if (live.on) {
      fill(place, list ? usageView(list.data, Number(span.value)) : empty(t('no_usage')));
    }
  };
  span.addEventListener('change', load);
  main.append(...heading(t('usage')), h('div', 'grid even',
    card(t('this_key'), facts([[t('tenant'), me.tenant.name], [t('key'), h('code', {}, me.key.id)], [t('note'), me.key.label],
      [t('scopes'), tags(me.key.scopes)], [t('weight'), me.tenant.weight === undefined ? null : String(me.tenant.weight)],
      [t('expires'), me.key.expires_at ? duration(me.key.expires_at - Date.now() / 1000) : null],
      [t('at_work'), me.now ? String(me.now.inflight) : null]])), quotaCard(me)),
  h('section', 'card', h('div', 'head', h('h2', {}, t('used')), h('div', {}, field(t('span'), span))), place));
  await load();
}
