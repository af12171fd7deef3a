/* app.js: sign-in, the head of the page, and which page a hash shows.
 *
 * "#/task/reviews?tab=x" is a page's name, its argument and its settings. A page is a function
 * (main, argument, live, me, settings) that fills `main`. `live` lasts until the page is left:
 * live.every(ms, f) repeats f, live.signal aborts what it reads, live.on is false from then on.
 * When the server cannot be reached a banner says so, /healthz is asked every second, and what
 * failed meanwhile is drawn again. */
import { get, getKey, setKey } from './api.js';
import { h, fill, field, fault, form, input, button, heading, loading } from './dom.js';
import { t, language, setLanguage } from './strings.js';
import { overview } from './overview.js';
import { tasks } from './tasks.js';
import { task } from './task.js';
import { teach } from './teach.js';
import { job } from './job.js';
import { play } from './play.js';
import { usage } from './usage.js';
import { admin } from './admin.js';

const PAGES = {
  overview: { page: overview, scopes: [] },
  tasks: { page: tasks, scopes: [] },
  task: { page: task, scopes: [], under: 'tasks' },
  teach: { page: teach, scopes: ['adapt'] },
  job: { page: job, scopes: ['adapt', 'read'], under: 'teach' },
  play: { page: play, scopes: ['predict'] },
  usage: { page: usage, scopes: [] },
  admin: { page: admin, scopes: ['admin'] },
};
const THEMES = ['auto', 'light', 'dark'];
const THEME = 'mp2.theme';

let me = null;
let live = null;

const main = document.getElementById('main');

/* As on the server, admin holds read. */
const may = (scopes) => scopes.length === 0 || scopes.some((scope) => me.key.scopes.includes(scope) ||
  (scope === 'read' && me.key.scopes.includes('admin')));

function newLive() {
  const timers = new Set(), stop = new AbortController();
  const one = {
    on: true,
    signal: stop.signal,
    every(ms, run) {
      const step = async () => {
        try {
          await run();
        } catch (e) {
          if (one.on && e.status !== 0) { /* 0: the banner says it */
            console.warn(e.message);
          }
        }
        if (one.on) {
          const timer = setTimeout(() => { timers.delete(timer); step(); }, ms);
          timers.add(timer);
        }
      };
      step();
    },
    end() {
      one.on = false;
      stop.abort();
      timers.forEach(clearTimeout);
    },
  };
  return one;
}

/* ---- the head ---- */

function theme() {
  return sessionStorage.getItem(THEME) || 'auto';
}

function setTheme(name) {
  sessionStorage.setItem(THEME, name);
  document.documentElement.dataset.theme = name;
}

function signOut() {
  setKey(null);
  me = null;
  show();
}

function drawHead(current) {
  const links = me ? Object.entries(PAGES).filter(([, page]) => !page.under && may(page.scopes)) : [];
  const other = language() === 'zh' ? 'en' : 'zh';
  const quiet = { class: 'quiet small' };
  const themeButton = button(t(`theme_${theme()}`), () => {
    setTheme(THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length]);
    themeButton.textContent = t(`theme_${theme()}`);
  }, { ...quiet, title: t('theme') });
  fill(document.getElementById('head'),
    h('a', { class: 'name', href: '#/overview' },
      h('img', { src: '/static/icon.svg', alt: '', width: 24, height: 24 }), 'mp2'),
    links.length ? h('nav', { 'aria-label': t('pages') }, h('ul', {}, links.map(([name]) =>
      h('li', {}, h('a', { href: `#/${name}`, 'aria-current': name === current ? 'page' : null }, t(name)))))) : null,
    h('div', 'who', me ? h('span', { class: 'tenant', title: t('tenant') }, me.tenant.name) : null,
      themeButton,
      button(other === 'zh' ? '中文' : 'English', () => { setLanguage(other); show(); }, { ...quiet, lang: other }),
      me ? button(t('sign_out'), signOut, quiet) : null));
}

/* ---- sign-in ---- */

function signIn(why) {
  const key = input({ type: 'password', required: true, placeholder: 'mp2_…' });
  const ask = async () => {
    setKey(key.value.trim());
    try {
      me = await get('/v1/me');
    } catch (e) {
      setKey(null);
      throw e.status === 401 ? new Error(t('wrong_key')) : e;
    }
    show();
  };
  fill(main, h('div', 'signin', h('div', 'card',
    heading(t('sign_in')), h('p', 'lead', t('sign_in_hint')),
    why ? fault(why) : null, form([field(t('key'), key, t('key_hint'))], t('sign_in'), ask))));
  key.focus();
}

/* ---- which page ---- */

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function place() {
  const [path, search] = location.hash.replace(/^#\/?/, '').split('?', 2);
  const [name, ...rest] = path.split('/');
  return { name: Object.hasOwn(PAGES, name) ? name : 'overview', argument: decoded(rest.join('/')),
    settings: Object.fromEntries(new URLSearchParams(search || '')) };
}

/* Who the key is; null and a reason when nobody. */
async function whoIsThere() {
  if (me || !getKey()) {
    return null;
  }
  try {
    me = await get('/v1/me');
    return null;
  } catch (e) {
    if (e.status === 401) {
      setKey(null);
      return { message: t('key_ended') };
    }
    return e;
  }
}

async function draw(at, mine) {
  fill(main, loading());
  try {
    const drawn = h('div');
    await PAGES[at.name].page(drawn, at.argument, mine, me, at.settings);
    if (mine.on) {
      fill(main, drawn);
    }
  } catch (e) {
    if (mine.on) {
      fill(main, heading(t(at.name)), fault(e, show));
    }
  }
}

async function show() {
  if (live) {
    live.end();
  }
  live = newLive();
  const mine = live, at = place();
  document.documentElement.lang = language();
  document.getElementById('skip').textContent = t('skip');
  const failed = await whoIsThere();
  if (!mine.on) {
    return;
  }
  const under = PAGES[at.name].under || at.name;
  drawHead(under);
  document.title = me ? `${at.argument ? `${at.argument} · ` : ''}${t(under)} · mp2` : 'mp2';
  if (!me && getKey()) {
    fill(main, heading('mp2'), fault(failed, show));
    return;
  }
  if (!me) {
    signIn(failed);
    return;
  }
  if (may(PAGES[at.name].scopes)) {
    await draw(at, mine);
  } else {
    fill(main, heading(t(at.name)), fault({ message: t('no_scope') }));
  }
  const title = main.querySelector('h1');
  if (mine.on && title && !main.contains(document.activeElement)) {
    title.focus({ preventScroll: true });
  }
}

/* ---- the server goes and comes ---- */

let away = 0;

async function look() {
  try {
    const answer = await fetch('/healthz', { cache: 'no-store', credentials: 'omit' });
    if (answer.ok) {
      away = 0;
      document.getElementById('banner').textContent = '';
      document.dispatchEvent(new Event('mp2:back')); /* what failed tries again */
      return;
    }
  } catch { /* still away */ }
  away = setTimeout(look, 1000);
}

document.addEventListener('mp2:reach', (event) => {
  if (!event.detail && !away) {
    document.getElementById('banner').textContent = t('unreachable');
    away = setTimeout(look, 1000);
  }
});
document.addEventListener('mp2:refused', () => {
  if (me) { /* a key that worked until now */
    me = null;
    show();
  }
});
document.getElementById('skip').addEventListener('click', (event) => {
  event.preventDefault(); /* the hash belongs to the pages */
  main.focus();
});
addEventListener('hashchange', show);
setTheme(theme());
show();
