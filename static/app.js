/* app.js: sign-in, the head of the page, and which page a hash shows.
 *
 * A page is a function (main, argument, live) that fills `main`; live.every(ms, f) runs f until the page
 * is left, and live.on is false from then on. */
import { get, getKey, setKey } from './api.js';
import { h, fill, field, fault } from './dom.js';
import { t, language, setLanguage } from './strings.js';
import { overview } from './overview.js';
import { tasks, task } from './tasks.js';
import { teach, job } from './teach.js';
import { play } from './play.js';
import { admin } from './admin.js';

const PAGES = {
  overview: { page: overview, scopes: [] },
  tasks: { page: tasks, scopes: [] },
  task: { page: task, scopes: [], under: 'tasks' },
  teach: { page: teach, scopes: ['adapt'] },
  job: { page: job, scopes: ['adapt', 'read'], under: 'teach' },
  play: { page: play, scopes: ['predict'] },
  admin: { page: admin, scopes: ['admin'] },
};

let me = null;
let live = null;

/* As on the server, admin holds read. */
const may = (scopes) => scopes.length === 0 || scopes.some((scope) => me.key.scopes.includes(scope) ||
  (scope === 'read' && me.key.scopes.includes('admin')));

function newLive() {
  const timers = [];
  const one = {
    on: true,
    every(ms, run) {
      const step = async () => {
        await run();
        if (one.on) {
          timers.push(setTimeout(step, ms));
        }
      };
      step();
    },
    end() {
      one.on = false;
      timers.forEach(clearTimeout);
    },
  };
  return one;
}

function signOut() {
  setKey(null);
  me = null;
  show();
}

function drawHead(current) {
  const links = me ? Object.entries(PAGES).filter(([, page]) => !page.under && may(page.scopes)).map(([name]) =>
    h('li', {}, h('a', { href: `#/${name}`, 'aria-current': name === current ? 'page' : null }, t(name)))) : [];
  const other = language() === 'zh' ? 'en' : 'zh';
  fill(document.getElementById('head'), h('a', { class: 'name', href: '#/overview' }, 'mp2'),
    links.length ? h('nav', { 'aria-label': t('pages') }, h('ul', {}, links)) : null,
    h('div', { class: 'who' }, me ? h('span', {}, me.tenant.name) : null,
      h('button', { type: 'button', class: 'plain', lang: other, onclick: () => { setLanguage(other); show(); } }, other === 'zh' ? '中文' : 'English'),
      me ? h('button', { type: 'button', class: 'plain', onclick: signOut }, t('sign_out')) : null));
}

function signIn(main, error) {
  const input = h('input', { type: 'password', autocomplete: 'off', required: true, spellcheck: 'false', placeholder: 'mp2_…' });
  const place = h('div', {}, error ? fault(error) : null);
  const submit = async (event) => {
    event.preventDefault();
    setKey(input.value.trim());
    try {
      me = await get('/v1/me');
      show();
    } catch (e) {
      setKey(null);
      fill(place, fault(e.status === 401 ? { message: t('wrong_key') } : e));
    }
  };
  fill(main, h('form', { class: 'card signin', onsubmit: submit }, h('h1', { tabindex: '-1' }, t('sign_in')),
    field(t('key'), input, t('key_hint')), place, h('div', { class: 'row' }, h('button', {}, t('sign_in')))));
  input.focus();
}

async function known() {
  if (!me && getKey()) {
    me = await get('/v1/me');
  }
  return me;
}

async function show() {
  if (live) {
    live.end();
  }
  live = newLive();
  const mine = live;
  const main = document.getElementById('main');
  const [name, argument] = location.hash.replace(/^#\//, '').split('/');
  const found = Object.hasOwn(PAGES, name) ? name : 'overview';
  document.documentElement.lang = language();
  document.getElementById('skip').textContent = t('skip');
  let failed = null;
  try {
    await known();
  } catch (e) {
    failed = e;
    if (e.status === 401) {
      setKey(null);
    }
  }
  if (!mine.on) {
    return;
  }
  drawHead(PAGES[found].under || found);
  document.title = me ? `${t(PAGES[found].under || found)} · mp2` : 'mp2';
  if (!me) {
    signIn(main, failed);
    return;
  }
  fill(main);
  if (!may(PAGES[found].scopes)) {
    fill(main, h('h1', { tabindex: '-1' }, t(found)), fault({ message: t('no_scope') }));
    return;
  }
  try {
    await PAGES[found].page(main, argument === undefined ? '' : decodeURIComponent(argument), mine, me);
  } catch (e) {
    if (mine.on) {
      main.append(fault(e));
    }
  }
  const title = main.querySelector('h1');
  if (mine.on && title) {
    title.tabIndex = -1;
    title.focus({ preventScroll: true });
  }
}

document.getElementById('skip').addEventListener('click', (event) => {
  event.preventDefault(); /* the hash belongs to the pages */
  document.getElementById('main').focus();
});
addEventListener('hashchange', show);
show();
