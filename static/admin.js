/* admin.js: tenants and their keys. A key is shown once, when it is made. */
import { call, get, post, query } from './api.js';
import { h, fill, field, card, table, time, fault, notice, copyable } from './dom.js';
import { t } from './strings.js';

const SCOPES = ['predict', 'adapt', 'read', 'admin'];

function keyForm(path, made) {
  const label = h('input', { autocomplete: 'off', maxlength: '128' });
  const boxes = SCOPES.map((scope) => h('input', { type: 'checkbox', value: scope, checked: scope !== 'admin' }));
  const place = h('div', {});
  const submit = async (event) => {
    event.preventDefault();
    const body = { scopes: boxes.filter((box) => box.checked).map((box) => box.value) };
    if (label.value.trim()) {
      body.label = label.value.trim();
    }
    try {
      const key = await post(`${path}/keys`, body);
      fill(place, h('p', { role: 'status' }, t('shown_once')), copyable(t('key'), key.key));
      label.value = '';
      made();
    } catch (e) {
      fill(place, fault(e));
    }
  };
  return h('form', { onsubmit: submit }, h('h3', {}, t('new_key')), field(t('label'), label),
    h('fieldset', {}, h('legend', {}, t('scopes')), boxes.map((box, i) => h('label', {}, box, SCOPES[i]))), h('div', { class: 'row' }, h('button', {}, t('make_key'))), place);
}

async function all(path) {
  const rows = [];
  let after = null;
  for (let page = 0; page < 10; page++) {
    const list = await get(`${path}${query({ limit: 100, after })}`);
    rows.push(...list.data);
    if (!list.has_more) {
      break;
    }
    after = list.last_id;
  }
  return rows;
}

function tenantView(place, name) {
  const path = `/v1/admin/tenants/${encodeURIComponent(name)}`;
  const list = h('div', {});
  const load = async () => {
    try {
      const keys = await all(`${path}/keys`);
      const revoke = async (key) => {
        if (confirm(t('sure_revoke'))) {
          try {
            await call('DELETE', `${path}/keys/${encodeURIComponent(key.id)}`);
            notice(t('revoked'));
          } catch (e) {
            notice(e.message);
          }
          load();
        }
      };
      fill(list, table([t('key'), t('label'), t('scopes'), t('created'), t('do')], keys.map((key) => [key.id, key.label || '–', key.scopes.join(', '), time(key.created_at),
        key.revoked_at ? `${t('revoked')} ${time(key.revoked_at)}` : h('button', { type: 'button', class: 'danger', 'aria-label': `${t('revoke')} ${key.id}`, onclick: () => revoke(key) }, t('revoke'))]), t('keys')));
    } catch (e) {
      fill(list, fault(e));
    }
  };
  const view = card(`${t('keys')}: ${name}`, list, keyForm(path, load));
  fill(place, view);
  view.tabIndex = -1;
  view.focus();
  load();
}

export async function admin(main, argument, live) {
  const name = h('input', { autocomplete: 'off', required: true });
  const list = h('div', {}), place = h('div', {}), wrong = h('div', {});
  const load = async () => {
    const tenants = await all('/v1/admin/tenants');
    if (live.on) {
      fill(list, table([t('tenant'), t('state'), t('settings'), t('created'), t('do')], tenants.map((one) => [one.name, one.disabled ? t('disabled') : t('enabled'),
        Object.entries(one.settings).map(([key, value]) => `${key} ${value}`).join(', ') || '–', time(one.created_at),
        h('button', { type: 'button', class: 'plain', 'aria-label': `${t('keys')}: ${one.name}`, onclick: () => tenantView(place, one.name) }, t('keys'))]), t('tenants')));
    }
  };
  const submit = async (event) => {
    event.preventDefault();
    try {
      await post('/v1/admin/tenants', { name: name.value.trim() });
      fill(wrong);
      tenantView(place, name.value.trim());
      name.value = '';
      await load();
    } catch (e) {
      fill(wrong, fault(e));
    }
  };
  main.append(h('h1', {}, t('admin')), h('div', { class: 'card' }, h('h2', {}, t('tenants')), list,
    h('form', { onsubmit: submit }, field(t('new_tenant'), name), h('div', { class: 'row' }, h('button', {}, t('make_tenant'))), wrong)), place);
  await load();
}
