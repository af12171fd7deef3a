/* admin.js: tenants, their keys and quotas; what was done (the audit log); backups. A key is shown once,
 * when it is made. "#/admin", "#/admin/tenant/NAME", "#/admin/audit", "#/admin/backup". */
import { call, get, post, maybe, query, all, tenantPath } from './api.js';
import { h, fill, field, card, heading, table, facts, time, short, bytes, duration, notice, copyable, badge,
  button, act, hash, link, check, form, input, sure, empty, rowButton, spoken } from './dom.js';
import { t, named } from './strings.js';
import { usageView } from './usage.js';

const SCOPES = ['predict', 'adapt', 'read', 'admin'];
const QUOTAS = ['requests_per_minute', 'tokens_per_minute', 'concurrent', 'stored_examples', 'running_jobs', 'queued_jobs'];
const KEY_QUOTAS = QUOTAS.slice(0, 3);

function tabs(current) {
  return h('nav', { class: 'tabs', 'aria-label': t('admin') }, [['', 'tenants'], ['audit', 'audit'], ['backup', 'backup']].map(([at, name]) =>
    h('a', { href: at ? `#/admin/${at}` : '#/admin', 'aria-current': at === current ? 'page' : null }, t(name))));
}

/* ---- tenants ---- */

function settingsText(one) {
  return Object.entries({ ...(one.weight === 1 ? {} : { weight: one.weight }), ...one.quotas }).filter(([, value]) => typeof value === 'number')
    .map(([name, value]) => `${named('quota', name)} ${short(value)}`).join(', ') || '–';
}

async function tenants(main) {
  const list = await all('/v1/admin/tenants');
  const name = input({ required: true, maxlength: 64 });
  const make = async () => {
    const made = await post('/v1/admin/tenants', { name: name.value.trim() });
    location.hash = hash('admin/tenant', made.name);
  };
  main.append(card(t('tenants'), table([t('tenant'), t('state'), t('settings'), t('created')], list.map((one) => [h('strong', {}, link('admin/tenant', one.name)),
    badge(t(one.disabled ? 'disabled' : 'enabled'), one.disabled ? 'warn' : 'good'), settingsText(one), time(one.created_at)]), t('tenants'))),
  card(t('new_tenant'), form([field(t('tenant_name'), name, t('tenant_name_hint'))], t('make_tenant'), make)));
}

/* ---- one tenant ---- */

function quotaFields(given, names = QUOTAS) {
  const controls = names.map((name) => input({ type: 'number', min: 0, placeholder: t('server_default'), value: given && given[name] !== null && given[name] !== undefined ? given[name] : null }));
  const read = () => Object.fromEntries(names.map((name, i) => [name, controls[i].value === '' ? null : Number(controls[i].value)]));
  return { parts: h('div', 'fields', names.map((name, i) => field(named('quota', name), controls[i]))), read };
}

function settingsCard(one, path, reload) {
  const enabled = check(t('enabled'), !one.disabled);
  const weight = input({ type: 'number', min: 0.01, max: 1000, step: 'any', value: one.weight });
  const given = one.quotas || {};
  const quotas = quotaFields(given);
  const change = async () => {
    const body = { disabled: !enabled.box.checked, weight: Number(weight.value) };
    const wanted = quotas.read();
    if (QUOTAS.some((name) => wanted[name] !== (given[name] ?? null))) {
      body.quotas = wanted;
    }
    await call('PATCH', path, body);
    notice(t('saved'));
    await reload();
  };
  return card(t('settings'), form([h('p', {}, enabled.label), field(t('weight'), weight, t('weight_hint')), h('h3', {}, t('quotas')), quotas.parts], t('save'), change));
}

function newKeyCard(path, reload) {
  const label = input({ maxlength: 128 }), days = input({ type: 'number', min: 1, max: 3650, placeholder: t('never') });
  const boxes = SCOPES.map((scope) => check(scope, scope !== 'admin'));
  const place = h('div');
  const make = async () => {
    fill(place);
    const body = { scopes: SCOPES.filter((_, i) => boxes[i].box.checked) };
    if (label.value.trim()) {
      body.label = label.value.trim();
    }
    if (days.value) {
      body.expires_in = Number(days.value) * 86400;
    }
    const made = await post(`${path}/keys`, body);
    showKey(place, made.key);
    label.value = '';
    await reload();
  };
  return card(t('new_key'), form([h('fieldset', {}, h('legend', {}, t('scopes')), boxes.map((one) => one.label)),
    h('div', 'fields', field(t('note'), label), field(t('expires_days'), days))], t('make_key'), make), place);
}

function showKey(place, key) {
  fill(place, h('div', { class: 'well', role: 'status' }, h('p', {}, h('strong', {}, t('shown_once'))), copyable(t('key'), key)));
}

function keyState(key) {
  const now = Date.now() / 1000;
  return key.revoked_at ? badge(t('revoked'), 'bad') : key.expires_at && key.expires_at <= now ? badge(t('expired'), 'warn') : badge(t('valid'), 'good');
}

/* What a key may do besides: its label, its own quotas. */
function keyForm(key, at, place, reload) {
  const label = input({ maxlength: 128, value: key.label || '', required: Boolean(key.label) }); /* a label can be replaced, not removed */
  const quotas = quotaFields(key.quotas, KEY_QUOTAS);
  const change = async () => {
    await call('PATCH', at, { ...(label.value.trim() ? { label: label.value.trim() } : {}), quotas: quotas.read() });
    fill(place);
    notice(t('saved'));
    await reload();
  };
  fill(place, h('div', 'well', form([h('h3', { tabindex: '-1' }, `${t('edit')} ${key.id}`), field(t('note'), label), quotas.parts], t('save'), change)));
  label.focus();
}

function keyTable(keys, path, place, reload) {
  const asked = (name, work, said) => async () => {
    if (await sure(t(`sure_${name}`), t(name))) {
      await act(work, said, reload);
    }
  };
  const at = (key) => `${path}/keys/${encodeURIComponent(key.id)}`;
  const revoke = (key) => asked('revoke', () => call('DELETE', at(key)), 'revoked');
  const rotate = (key) => asked('rotate', async () => showKey(place, (await post(`${at(key)}/rotate`, { grace_seconds: 86400 })).key));
  const live = (key) => !key.revoked_at && !(key.expires_at && key.expires_at <= Date.now() / 1000);
  return table([t('key'), t('state'), t('note'), t('scopes'), t('created'), t('expires'), ['', 'acts']], keys.map((key) => [h('code', {}, key.id), keyState(key),
    key.label || '–', key.scopes.join(', '), time(key.created_at), key.expires_at ? time(key.expires_at) : t('never'), live(key) ? [
      rowButton('edit', key.id, () => keyForm(key, at(key), place, reload)), rowButton('rotate', key.id, rotate(key)),
      rowButton('revoke', key.id, revoke(key), 'danger')] : null]), t('keys'));
}

async function tenantPage(main, name) {
  const path = tenantPath(name);
  const settings = h('div'), keys = h('div'), shown = h('div');
  const loadSettings = async () => fill(settings, settingsCard(await get(path), path, loadSettings));
  const loadKeys = async () => {
    const list = await all(`${path}/keys`);
    fill(keys, list.length ? keyTable(list, path, shown, loadKeys) : empty(t('no_keys'), t('no_keys_hint')));
  };
  const [used] = await Promise.all([get(`/v1/usage${query({ tenant: name, days: 30 })}`), loadSettings(), loadKeys()]);
  main.append(...heading(name, { crumb: ['#/admin', t('tenants')] }), card(t('keys_title'), keys, shown), h('div', 'grid', newKeyCard(path, loadKeys), settings), card(t('used'), usageView(used.data, 30)));
}

/* ---- what was done ---- */

function detailText(detail) {
  return detail === null || detail === undefined ? '' : typeof detail === 'string' ? detail
    : Object.entries(detail).map(([name, value]) => `${name} ${typeof value === 'object' ? JSON.stringify(value) : value}`).join(', ');
}

async function audit(main) {
  const place = h('div'), rows = [];
  let after;
  const more = button(t('more'), () => act(load));
  async function load() {
    const list = await maybe(get(`/v1/admin/audit${query({ limit: 50, after })}`));
    if (!list) {
      fill(place, empty(t('no_audit')));
      return;
    }
    rows.push(...list.data);
    after = rows.length ? rows.at(-1).id : undefined;
    more.hidden = !list.has_more;
    fill(place, rows.length ? [table([t('when'), t('actor'), t('action'), t('object'), [t('detail'), 'wide']], rows.map((one) => [time(one.created_at),
      one.actor ? [one.actor.tenant, one.actor.key, one.actor.user].filter((who) => who).join(' ') : '–', one.action, one.object || '–', detailText(one.detail)]), t('audit')),
    h('div', 'row', more)] : empty(t('no_audit_yet')));
  }
  main.append(card(t('audit'), h('p', 'hint', t('audit_hint')), place));
  await load();
}

/* ---- backup ---- */

async function backup(main) {
  const name = input({ maxlength: 128, placeholder: t('usual') });
  const place = spoken();
  const make = async () => {
    const body = name.value.trim() ? { name: name.value.trim() } : {};
    const made = await post('/v1/admin/backup', body);
    fill(place, h('div', 'well', h('p', 'good', t('backup_made')), facts([[t('file_word'), h('code', {}, made.path)],
      [t('size'), bytes(made.bytes)], [t('took'), duration(made.seconds)], [t('created'), time(made.created_at)]])));
  };
  main.append(card(t('backup'), h('p', 'hint', t('backup_hint')), form([field(t('backup_name'), name)], t('make_backup'), make), place));
}

export async function admin(main, argument) {
  if (argument.startsWith('tenant/')) {
    await tenantPage(main, argument.slice(7));
    return;
  }
  main.append(...heading(t('admin')), tabs(argument === 'audit' || argument === 'backup' ? argument : ''));
  await (argument === 'audit' ? audit : argument === 'backup' ? backup : tenants)(main);
}
