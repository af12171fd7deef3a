/* teach.js: from a few labelled examples to a task: check the rows, start a job, watch it, try it. */
import { get, post, query, taskPath } from './api.js';
import { h, fill, field, select, card, table, chart, percent, fault, notice, time } from './dom.js';
import { t } from './strings.js';
import { tryBox } from './play.js';
import { jobTable } from './overview.js';
import { taskLink } from './tasks.js';

const METHODS = ['route', 'route+prompt', 'prompt', 'blackbox-route', 'blackbox'];
const OVER = ['succeeded', 'failed', 'cancelled'];

const looksLikeJson = (text) => /^\s*\{/.test(text);

function checkedView(file) {
  const { rows, bad_rows: bad, labels, errors, type } = file.mp2;
  return h('div', {}, h('p', { class: 'checked' }, `${rows} ${t('rows_good')}`, bad ? h('span', { class: 'bad' }, `, ${bad} ${t('rows_bad')}`) : null, type ? ` · ${t(type)}` : null),
    labels && labels.length ? h('p', {}, labels.slice(0, 30).map((label) => h('span', { class: 'tag' }, label))) : null,
    errors && errors.length ? table([t('line'), t('where'), t('why')], errors.map((one) => [String(one.line), one.pointer, one.message]), t('rows_bad')) : null);
}

function startForm(file, model) {
  const name = h('input', { autocomplete: 'off', required: true, maxlength: '128' });
  const method = select([['', t('method_auto')], ...METHODS.map((one) => [one, t(one)])], '');
  const steps = h('input', { type: 'number', min: '1', max: '100000', placeholder: t('usual') });
  const place = h('div', {});
  const submit = async (event) => {
    event.preventDefault();
    const mp2 = { task: name.value.trim() };
    if (method.value) {
      mp2.method = method.value;
    }
    if (steps.value) {
      mp2.budget = method.value.startsWith('blackbox') ? { evaluations: Number(steps.value) } : { steps: Number(steps.value) };
    }
    try {
      const job = await post('/v1/fine_tuning/jobs', { model, training_file: file.id, mp2 });
      location.hash = `#/job/${encodeURIComponent(job.id)}`;
    } catch (e) {
      fill(place, fault(e));
    }
  };
  return h('form', { onsubmit: submit }, field(t('task_name'), name, t('task_name_hint')), field(t('method'), method, t('method_hint')),
    field(t('steps'), steps), place, h('div', { class: 'row' }, h('button', {}, t('start'))));
}

export async function teach(main, argument, live) {
  const text = h('textarea', { rows: '8', spellcheck: 'false', placeholder: '{"text": "…", "label": "…"}' });
  const file = h('input', { type: 'file', accept: '.jsonl,.csv,.json,.txt' });
  const checked = h('div', { 'aria-live': 'polite' });
  const read = async (chosen) => {
    if (chosen) {
      text.value = await chosen.text();
    }
  };
  file.addEventListener('change', () => read(file.files[0]));
  const drop = h('div', { class: 'drop' }, field(t('file'), file, t('file_hint')), field(t('rows'), text, t('rows_hint')));
  const over = (on) => (event) => { event.preventDefault(); drop.classList.toggle('over', on); };
  drop.addEventListener('dragover', over(true));
  drop.addEventListener('dragleave', over(false));
  drop.addEventListener('drop', (event) => { over(false)(event); read(event.dataTransfer.files[0]); });
  const submit = async (event) => {
    event.preventDefault();
    if (text.value.trim() === '') {
      fill(checked, fault({ message: t('nothing_given') }));
      return;
    }
    const form = new FormData();
    form.append('purpose', 'fine-tune');
    form.append('file', new Blob([text.value]), looksLikeJson(text.value) ? 'examples.jsonl' : 'examples.csv');
    try {
      const [sent, models] = await Promise.all([post('/v1/files', form), get('/v1/models')]);
      const model = models.data.find((one) => one.mp2 && one.mp2.kind === 'backbone').id;
      fill(checked, card(t('checked'), checkedView(sent)), sent.mp2.rows ? card(t('start_title'), startForm(sent, model)) : null);
    } catch (e) {
      fill(checked, fault(e));
    }
  };
  const jobs = h('div', {});
  main.append(h('h1', {}, t('teach')), h('form', { class: 'card', onsubmit: submit }, h('h2', {}, t('examples')), drop,
    h('div', { class: 'row' }, h('button', {}, t('check')))), checked, jobs);
  const list = await get('/v1/fine_tuning/jobs?limit=10');
  if (live.on && list.data.length) {
    fill(jobs, card(t('latest_jobs'), jobTable(list.data)));
  }
}

function curves(events) {
  const points = (name) => events.filter((one) => one.data && one.type === 'metrics' && typeof one.data[name] === 'number').map((one) => [one.data.step, one.data[name]]);
  const train = points('train_loss'), valid = points('valid_loss'), accuracy = points('valid_accuracy');
  return h('div', { class: 'grid' },
    train.length + valid.length ? card(t('loss'), chart(t('loss'), [{ name: t('train_loss'), points: train }, { name: t('valid_loss'), points: valid }])) : null,
    accuracy.length ? card(t('accuracy'), chart(t('accuracy'), [{ name: t('valid_accuracy'), points: accuracy }], 0)) : null);
}

function resultRows(result) {
  const named = (value, name) => typeof value !== 'number' ? String(value)
    : /accuracy|f1|exact/.test(name) ? percent(value) : String(Number(value.toPrecision(5)));
  return Object.entries(result).filter(([, value]) => value !== null && typeof value !== 'object').map(([name, value]) => [t(name), named(value, name)]);
}

/* All events of a job, oldest first. */
async function allEvents(path) {
  const events = [];
  let after = null;
  for (let page = 0; page < 20; page++) {
    const list = await get(`${path}/events${query({ limit: 100, after })}`);
    events.push(...list.data);
    if (!list.has_more) {
      break;
    }
    after = list.last_id;
  }
  return events.reverse();
}

export async function job(main, id, live, me) {
  const path = `/v1/fine_tuning/jobs/${encodeURIComponent(id)}`;
  const state = h('p', { 'aria-live': 'polite' }), bar = h('progress', { max: '1', value: '0', 'aria-label': t('progress') });
  const drawn = h('div', {}), log = h('div', {}), result = h('div', {}), tryPlace = h('div', {}), wrong = h('div', {});
  const cancel = h('button', { type: 'button', class: 'danger', onclick: async () => {
    try {
      await post(`${path}/cancel`, {});
      notice(t('cancelling'));
    } catch (e) {
      notice(e.message);
    }
  } }, t('cancel'));
  cancel.hidden = true;
  main.append(h('h1', {}, `${t('job')} ${id}`), h('div', { class: 'card' }, state, bar, h('div', { class: 'row' }, cancel)), wrong, result, tryPlace, drawn, log);
  let over = false;
  async function finish(one) {
    if (one.error && one.error.message) {
      fill(wrong, fault({ message: one.error.message }));
    }
    if (one.mp2.result) {
      fill(result, card(t('result'), table([t('field'), t('value')], resultRows(one.mp2.result), t('result'))));
    }
    if (one.status === 'succeeded' && me.key.scopes.includes('predict')) {
      fill(tryPlace, tryBox(await get(taskPath(one.mp2.task)), t('try_it')));
    }
  }
  async function poll() {
    const [one, events] = await Promise.all([get(path), allEvents(path)]);
    if (!live.on) {
      return;
    }
    const last = events.filter((event) => event.data && event.data.total_steps).pop();
    over = OVER.includes(one.status);
    bar.value = one.status === 'succeeded' ? 1 : last ? last.data.step / last.data.total_steps : 0;
    bar.hidden = over;
    cancel.hidden = over || !me.key.scopes.includes('adapt');
    fill(state, h('strong', { class: one.status === 'succeeded' ? 'good' : one.status === 'failed' ? 'bad' : null }, t(one.status)),
      ` · ${t('task')} `, one.status === 'succeeded' ? taskLink(one.mp2.task) : one.mp2.task || '–', ` · ${one.mp2.method || ''}`);
    fill(drawn, curves(events));
    fill(log, card(t('events'), table([t('when'), t('message')], events.slice(-100).reverse().map((event) => [time(event.created_at), event.message]), t('events'))));
    if (over) {
      await finish(one);
    }
  }
  await poll();
  if (!over) {
    live.every(1000, async () => {
      if (over) {
        return;
      }
      try {
        await poll();
        fill(wrong.querySelector('.gone') ? wrong : h('div'));
      } catch (e) {
        if (live.on) {
          fill(wrong, h('div', { class: 'gone' }, fault({ message: `${t('unreachable')} ${e.message}` })));
        }
      }
    });
  }
}
