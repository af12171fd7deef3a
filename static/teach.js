/* teach.js: from a few labelled examples to a job: give the rows, see each one checked, see what the job
 * would cost, start it. The job has a page of its own (job.js). */
import { get, post, maybe } from './api.js';
import { h, fill, field, select, card, heading, fault, input, form, fileButton, button, check, facts, duration,
  short, hash, loading, details, spoken } from './dom.js';
import { t } from './strings.js';
import { jobTable } from './overview.js';
import { upload, checkedView, refusedView } from './rows.js';

const METHODS = ['route', 'route+prompt', 'blackbox-route', 'blackbox', 'prompt'];
const SAMPLE = [['汤很鲜，分量也足', '好评'], ['等了一个小时，菜都凉了', '差评'], ['老板热情，上菜很快', '好评'],
  ['房间有霉味，一夜没睡好', '差评'], ['干净明亮，床也舒服', '好评'], ['隔音太差，不会再来', '差评'],
  ['送货快，包装很仔细', '好评'], ['用了两天就坏了', '差评'], ['味道正宗，还会再点', '好评'],
  ['服务员爱理不理', '差评'], ['性价比高，值得推荐', '好评'], ['图片和实物不一样', '差评']];

function steps(at) {
  return h('ol', { class: 'steps', 'aria-label': t('steps_of') }, ['step_rows', 'step_check', 'step_start'].map((name, i) =>
    h('li', { class: i < at ? 'done' : null, 'aria-current': i === at ? 'step' : null }, t(name))));
}

/* ---- what the job is ---- */

/* Controls for a job on `file`, and body() of what they say. */
function jobControls(file, model, taskName) {
  const name = input({ required: true, maxlength: 128, value: taskName || '' });
  const method = select([['', t('method_auto')], ...METHODS.map((one) => [one, t(one)])], '');
  const number = (props) => input({ type: 'number', placeholder: t('usual'), ...props });
  const count = number({ min: 1, max: 100000 }), seconds = number({ min: 1, max: 86400 }), seed = number({ min: 0 });
  const template = input({ placeholder: '{text}' });
  const publish = check(t('publish_when_done'), true);
  const why = h('p', 'hint', t('why_auto'));
  const validation = { id: null };
  const taken = h('span', 'soft', t('validation_hint'));
  const wrong = h('div');
  const takeValidation = async (text, chosen) => {
    try {
      const sent = await upload(text, chosen);
      validation.id = sent.id;
      fill(taken, `${chosen}: ${t('rows_good', { n: sent.mp2.rows })}`);
      fill(wrong);
      name.dispatchEvent(new Event('change', { bubbles: true }));
    } catch (e) {
      fill(wrong, fault(e));
    }
  };
  method.addEventListener('change', () => fill(why, t(method.value ? `why_${method.value}` : 'why_auto')));
  const body = () => {
    const mp2 = { task: name.value.trim() || t('new_task_name') };
    const budget = {};
    if (method.value) {
      mp2.method = method.value;
    }
    if (count.value) {
      budget[method.value.startsWith('blackbox') ? 'evaluations' : 'steps'] = Number(count.value);
    }
    if (seconds.value) {
      budget.seconds = Number(seconds.value);
    }
    if (Object.keys(budget).length) {
      mp2.budget = budget;
    }
    if (!publish.box.checked) {
      mp2.publish = false;
    }
    if (template.value.trim()) {
      mp2.template = template.value.trim();
    }
    return { model, training_file: file.id, mp2, ...(seed.value ? { seed: Number(seed.value) } : {}),
      ...(validation.id ? { validation_file: validation.id } : {}) };
  };
  const parts = [field(t('task_name'), name, t('task_name_hint')), field(t('method'), method), why, publish.label,
    details(t('more_settings'), h('div', 'fields', field(t('steps'), count), field(t('seconds_most'), seconds), field(t('seed'), seed)),
      field(t('template'), template, t('template_hint')),
      h('div', 'row', fileButton(t('validation_file'), '.jsonl,.csv,.json,.txt', takeValidation), taken), wrong)];
  return { parts, body, name };
}

function estimateView(one) {
  return h('div', 'well', h('strong', {}, t('estimate', { time: duration(one.seconds) })), facts([
    [t('method'), t(one.method)], [t('train_rows'), short(one.train_rows)], [t('validation_rows'), short(one.validation_rows)],
    [t('steps_word'), one.steps ? short(one.steps) : null], [t('tokens'), one.tokens ? short(one.tokens) : null]]));
}

/* Asks for the estimate again when a control has changed; an older answer never replaces a newer. */
function keepEstimating(live, body, place) {
  let asked = 0, timer = 0;
  const ask = async () => {
    const mine = ++asked;
    try {
      const one = await maybe(post('/v1/fine_tuning/jobs/estimate', body()));
      if (mine === asked && live.on) {
        fill(place, one ? estimateView(one) : null);
      }
    } catch (e) {
      if (mine === asked && live.on) {
        fill(place, fault(e));
      }
    }
  };
  const soon = () => { clearTimeout(timer); timer = setTimeout(ask, 300); };
  ask();
  return soon;
}

function startForm(file, model, taskName, live) {
  const { parts, body, name } = jobControls(file, model, taskName);
  const cost = spoken(loading());
  const start = async () => {
    const job = await post('/v1/fine_tuning/jobs', body());
    location.hash = hash('job', job.id);
  };
  const made = form([parts, cost], t('start'), start);
  const soon = keepEstimating(live, body, cost);
  made.addEventListener('input', soon);
  made.addEventListener('change', soon);
  return { made, name };
}

/* ---- the page ---- */

function rowsForm(submit) {
  const text = h('textarea', { class: 'code', rows: 9, spellcheck: 'false', placeholder: '{"text": "…", "label": "…"}' });
  let name = '';
  const take = (given, of) => { text.value = given; name = of; };
  const drop = h('div', 'drop', field(t('rows'), text, t('rows_hint')), h('div', 'row',
    fileButton(t('choose_file'), '.jsonl,.csv,.json,.txt', take), h('span', 'soft', t('file_hint')),
    button(t('use_sample'), () => take(SAMPLE.map(([one, label]) => JSON.stringify({ text: one, label })).join('\n'), 'sample'), { class: 'quiet small' })));
  const over = (on) => (event) => { event.preventDefault(); drop.classList.toggle('over', on); };
  drop.addEventListener('dragover', over(true));
  drop.addEventListener('dragleave', over(false));
  drop.addEventListener('drop', async (event) => {
    over(false)(event);
    const [file] = event.dataTransfer.files;
    if (file) {
      take(await file.text(), file.name);
    }
  });
  return form([drop], t('check'), () => submit(text.value, name));
}

export async function teach(main, argument, live) {
  const progress = h('div', {}, steps(0)), checked = spoken(), start = h('div');
  const models = await get('/v1/models');
  const model = models.data.find((one) => one.mp2 && one.mp2.kind === 'backbone').id;
  const submit = async (text, name) => {
    fill(start);
    fill(checked);
    if (text.trim() === '') {
      throw new Error(t('nothing_given'));
    }
    let sent = null;
    try {
      sent = await upload(text, name);
    } catch (e) {
      if (!e.problems || !e.problems.length) {
        throw e;
      }
      fill(progress, steps(1));
      fill(checked, card(t('checked'), refusedView(text, e)));
      return;
    }
    fill(progress, steps(2));
    fill(checked, card(t('checked'), checkedView(text, sent.mp2)));
    const { made, name: nameField } = startForm(sent, model, argument, live);
    fill(start, card(t('teach'), made));
    nameField.focus();
  };
  const list = await get('/v1/fine_tuning/jobs?limit=10');
  main.append(...heading(argument ? t('teach_task', { name: argument }) : t('teach')), h('p', 'lead', t('teach_lead')), progress,
    h('section', 'card', h('h2', {}, t('examples')), rowsForm(submit)), checked, start);
  if (list.data.length) {
    main.append(card(t('latest_jobs'), jobTable(list.data)));
  }
}

