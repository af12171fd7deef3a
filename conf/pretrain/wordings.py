"""wordings.py: the same rows asked in many words, so that a model learns to read labels rather than to know them.

What a text is about, how someone feels about it, whether two sentences say the same: rows of the labelled tasks, each
with a question and option words drawn from the lists below. Choices, as their options differ from row to row.
Words and questions are ours.
"""

# Subjects and the words for them.
SUBJECTS = {
    "财经": "财经 经济 商业 理财 市场 生意", "金融": "金融 银行 保险 贷款 信用卡", "股票": "股票 股市 证券 炒股 基金 投资",
    "房产": "房产 房地产 楼市 买房 房价 住房", "教育": "教育 学校 考试 学习 高考 大学", "科技": "科技 数码 技术 电子产品 手机 新技术",
    "软件": "软件 互联网 信息技术 电脑 网络", "社会": "社会 民生 社会新闻 百姓生活 生活", "法律": "法律 法制 法规 律师 案件 司法",
    "时政": "时政 政治 政府 国家大事 政务 政策", "国际": "国际 世界 外交 国外 海外 全球", "军事": "军事 国防 军队 武器 战争 军人",
    "体育": "体育 运动 比赛 球赛 足球 健身", "游戏": "游戏 网游 电竞 玩家 手游 打游戏", "娱乐": "娱乐 明星 影视 八卦 电影 综艺",
    "文化": "文化 艺术 文学 书画 传统文化 人文", "历史": "历史 古代 古人 朝代 史书", "农业": "农业 农村 种植 养殖 三农 农民",
    "医疗": "医疗 健康 医学 看病 医院 养生", "餐饮": "美食 餐饮 饮食 吃饭 做菜 食物", "汽车": "汽车 车 买车 驾驶 车型 用车",
    "旅游": "旅游 旅行 景点 酒店 游玩 出游", "交通": "交通 运输 物流 出行 快递", "建筑": "建筑 工程 施工 装修", "环境": "环境 环保 水利 天气 自然",
    "能源": "能源 电力 燃气 石油 用电", "制造": "制造 工业 工厂 机械 生产", "科学": "科学 科研 研究 学术", "矿业": "矿业 采矿 煤矿 矿产",
    "管理": "管理 企业管理 经营 公司", "哲学": "哲学 思想 伦理",
}

# Of subjects that the tasks have few rows of: those near them, and words that are sure signs of them.
SIGNS = {
    "军事": ("国际 时政 历史 制造", "导弹 战机 航母 军演 解放军 坦克 战斗机 驱逐舰 潜艇 步枪 歼击机 部队 海军 空军"),
    "旅游": ("交通 文化 餐饮 历史", "景区 旅游 景点 游客 古镇 自驾游 门票 旅行社 度假"),
    "汽车": ("交通 制造", "SUV 轿车 车型 发动机 油耗 底盘 新车 比亚迪 变速箱 轴距 提车"),
    "农业": ("餐饮 环境 社会", "种植 养殖 农民 水稻 玉米 小麦 农村 农户 生猪 果园 化肥"),
    "国际": ("时政 军事 社会 旅游 文化", "特朗普 联合国 俄罗斯 叙利亚 普京 朝鲜 伊朗 默克尔 首相 英国 法国"),
    "文化": ("历史 教育 旅游 娱乐", "书法 诗词 博物馆 文物 国画 戏曲 京剧 非遗 古诗 散文 瓷器"),
    "历史": ("文化 军事 时政 娱乐", "皇帝 三国 清朝 明朝 唐朝 宋朝 曹操 诸葛亮 朱元璋 康熙"),
    "医疗": ("科学 社会", "患者 糖尿病 高血压 医生 中医 疫苗 症状 手术"),
}
SIGNS_OF = ("news", "clue_corpus_sample")

# task -> (the field of its text, label or None -> (subject, subjects too near it to stand beside it)).
SUBJECTS_OF = {
    "thucnews": ("text", {
        "财经": ("财经", "金融 股票"), "房产": ("房产", "建筑 财经"), "股票": ("股票", "财经 金融"), "教育": ("教育", "科学"),
        "科技": ("科技", "软件 科学"), "社会": ("社会", "法律 时政"), "时政": ("时政", "国际 军事 社会 法律"), "体育": ("体育", "娱乐"),
        "游戏": ("游戏", "软件 娱乐"), "娱乐": ("娱乐", "文化")}),
    "domain_cls": ("text", {
        "交通运输仓储邮政": ("交通", "汽车 旅游"), "住宿餐饮": ("餐饮", "旅游"), "信息软件": ("软件", "科技"), "农业": ("农业", "餐饮"),
        "制造业": ("制造", "科技 汽车 能源"), "卫生医疗": ("医疗", "科学"), "国际组织": ("国际", "时政"), "建筑": ("建筑", "房产 制造"),
        "房地产": ("房产", "建筑"), "政府组织": ("时政", "社会 法律"), "教育": ("教育", "科学"), "文体娱乐": ("娱乐", "文化 体育 游戏 历史"),
        "水利环境": ("环境", "能源"), "电力燃气水生产": ("能源", "环境 制造"), "科学技术": ("科学", "科技 软件 制造"),
        "租赁法律": ("法律", "财经 时政"), "采矿": ("矿业", "能源 制造"), "金融": ("金融", "财经 股票")}),
    "csl_discipline": ("text", {
        "农学": ("农业", "科学"), "医学": ("医疗", "科学"), "管理学": ("管理", "财经"), "法学": ("法律", "时政 社会"), "教育学": ("教育", "科学"),
        "经济学": ("财经", "金融 股票 管理"), "文学": ("文化", "历史 哲学"), "哲学": ("哲学", "文化 历史 科学"), "历史学": ("历史", "文化 哲学"),
        "艺术学": ("文化", "历史 哲学 娱乐"), "军事学": ("军事", "时政 国际 制造")}),
    "bdci_car": ("text_a", {None: ("汽车", "交通 制造")}),
    "chip_sts": ("text_a", {None: ("医疗", "科学")}),
    "afqmc": ("text_a", {None: ("金融", "财经 软件")}),
    "waimai": ("text", {None: ("餐饮", "旅游")}),
}
SUBJECTS_OF_TEXT = {"recipes": ("餐饮", "医疗 农业"), "law": ("法律", "时政 社会 管理"),
                    "classics_modern_translation": ("历史", "文化 军事 时政 哲学")}
QUOTES = (("\"", "\""), ("\"", "\""), ("“", "”"), ("", "，"), ("「", "」"), ("", " "))
ABOUT = ("", "", "主题识别：", "文章分类：", "新闻：", "标题：", "领域识别：", "话题分类：", "这条新闻", "文本：", "下面的文章"), \
    ("的主题是？", "属于哪一类？", "的类别是？", "应该放在哪个栏目？", "说的是什么方面的事？", "的领域是？", "的话题是？", "属于哪个频道？", "讲的是什么？",
     "是关于什么的？", "属于什么类型？", "的分类是？")

# Words for bad and good that go with any of the questions, and questions with words of their own.
OPINIONS = ("", "", "情感分析：", "评论：", "用户评价：", "顾客留言：", "观点倾向：", "商品评论：", "顾客写道：", "网友说：", "这条评论"), \
    ("的情感是？", "的情感倾向是？", "的评价怎么样？", "的态度是？", "是好还是坏？", "的倾向是？", "是什么评价？", "怎么样？", "属于哪一类？", "的感受是？")
BAD = "负面 消极 贬义 否定 批评 差评 不满 失望 讨厌 坏 差 糟糕 不好 很差 不满意 不喜欢 反感 差劲 负向 坏评 不推荐".split()
GOOD = "正面 积极 褒义 肯定 表扬 好评 满足 满意 喜爱 好 优 不错 很好 优秀 很满意 喜欢 赞 棒 正向 赞扬 推荐".split()
JUDGED = (
    ("是好评还是差评？", "差评", "好评"), ("作者满意吗？", "不满意 失望 不 不满", "满意 很满意 是"), ("作者推荐吗？", "不推荐 否", "推荐 是"),
    ("会再来吗？", "不会 否", "会 是"), ("作者喜欢吗？", "不喜欢 讨厌", "喜欢 很喜欢"), ("作者心情如何？", "不高兴 生气 难过", "高兴 开心 愉快"),
    ("值得买吗？", "不值得 不值", "值得 值"), ("是正面的吗？", "不是 否", "是"), ("是负面的吗？", "是", "不是 否"), ("是不是在抱怨？", "是", "不是"))
EMOTIONS = {"无情绪": "无情绪 平静 中性 客观 没有情绪 一般", "积极": "积极 高兴 开心 快乐 喜悦 幸福", "愤怒": "愤怒 生气 气愤 恼火 发怒",
            "悲伤": "悲伤 难过 伤心 痛苦 悲痛", "恐惧": "恐惧 害怕 担心 恐慌 担忧", "惊奇": "惊奇 惊讶 吃惊 震惊 意外"}
FEELING = ("", "", "情绪识别：", "心情分类：", "微博：", "这条微博", "网友说：", "情感分类："), \
    ("的情绪是？", "的作者心情如何？", "的心情是？", "表达了什么情绪？", "的感情是？", "属于哪种情绪？", "的情感是？")
INSULTS = (("是否冒犯他人？", "冒犯 攻击 辱骂 歧视 是", "安全 正常 文明 友好 否"), ("有没有骂人？", "有", "没有"), ("违规吗？", "违规 是", "正常 不违规 否"),
           ("是否友善？", "不友善 否 恶意", "友善 是 友好"))

# (before the first text, between them, behind, the words of each label)
SAME = (
    ("意思判别：\"", "\"与\"", "\"的意思是？", "矛盾 不同 不一样 相反", "相似 相同 一样 相近"), ("\"", "\"和\"", "\"意思一样吗？", "不一样 不是 否 不", "一样 是"),
    ("句子一：", "，句子二：", "，两句话等价吗？", "不等价 不一致 否", "等价 一致 是"), ("问题“", "”与问题“", "”问的是同一件事吗？", "不是 不同 否", "是 同一件事 相同"),
    ("第一句：", " 第二句：", " 意思相同吗？", "不同 不相同 不", "相同 是"), ("\"", "\"，\"", "\"，两个问题是否重复？", "不重复 否 不同", "重复 是 相同"))
INFERENCE = (
    ("意思判别：\"", "\"与\"", "\"的关系是？", "矛盾 相反 冲突", "中立 无关 没有关系", "相似 蕴含 包含"), ("前提：", "，假设：", "，假设成立吗？", "不成立 错误 否", "不确定 不知道", "成立 正确 是"),
    ("已知“", "”，那么“", "”，对吗？", "错 不对", "也许 可能 不一定", "对"), ("由\"", "\"能推出\"", "\"吗？", "矛盾 不能 相反", "无法判断 不确定", "能 可以"),
    ("如果\"", "\"是真的，\"", "\"是真的吗？", "假 不是 假的", "不知道 说不准", "真 是 真的"))
LABELS = {2: ("矛盾", "相似"), 3: ("矛盾", "中立", "相似")}  # of the pair tasks, by their number
PAIRS = {"afqmc": SAME, "bq": SAME, "chip_sts": SAME, "cmnli": INFERENCE, "csnli": INFERENCE, "xnli_zh": INFERENCE}

TEMPLATE = "{context}{question}选项："


def among(others, answer, rng):
    """The answer somewhere among the others."""
    options = [answer, *others]
    rng.shuffle(options)
    return {"options": options, "label": options.index(answer)}


def choice(before, text, behind, answer, others, rng):
    return {"context": before + text, "question": behind} | among(others, answer, rng)


def asked(wordings, text, rng):
    """(before the text, behind it): a heading, a question and quotes."""
    (before, behind), (headings, questions) = rng.choice(QUOTES), wordings
    return rng.choice(headings) + before, text, behind + rng.choice(questions)


def sign_of(line):
    """(subject, subjects near it, sign) where a line has signs of one subject alone, else None."""
    found = [(subject, near, sign) for subject, (near, signs) in SIGNS.items()
             if (sign := next((sign for sign in signs.split() if sign in line), None))]
    return found[0] if len(found) == 1 else None


def subject_rows(read_rows, corpora):
    """(text, subject, subjects near it, sign) of every row and line that says one."""
    rows = []
    for task, (field, labels) in SUBJECTS_OF.items():
        for row in read_rows(task):
            said = labels.get(row["label"], labels.get(None))
            if said and row[field].strip():
                rows.append((row[field].strip(), *said, ""))
    for name, said in SUBJECTS_OF_TEXT.items():
        lines = [line for line in corpora[name] if len(line) >= 10]
        rows += [(line[:80], *said, "") for line in lines[:: max(1, len(lines) // 2000)]]
    for line in (line for name in SIGNS_OF for line in corpora[name] if 10 <= len(line) <= 60):
        said = sign_of(line)
        if said:
            rows.append((line, *said))
    return rows


def about(rows, rng):
    """What a text is about. A sign is taken out of every second text that was found by it."""
    text, subject, near, sign = rng.choice(rows)
    if sign and rng.random() < 0.5:
        text = text.replace(sign, "")
    words = [word for other, said in SUBJECTS.items() if other != subject and other not in near.split()
             for word in said.split()]
    return choice(*asked(ABOUT, text, rng), rng.choice(SUBJECTS[subject].split()), rng.sample(words, rng.randrange(1, 15)), rng)


def which_subject(read_rows, corpora):
    by_subject = {}
    for row in subject_rows(read_rows, corpora):
        by_subject.setdefault(row[1], []).append(row)
    draws = [subject for subject, rows in by_subject.items() for _ in range(round(len(rows) ** 0.5))]
    return lambda rng: about(by_subject[rng.choice(draws)], rng)


def which_feeling(read_rows, opinion):
    """opinion(rng): a row of text and label 负面 or 正面."""
    emotions, insults = read_rows("smp_ewect"), read_rows("cold")

    def judged(wordings, headings, text, good, rng):
        behind, *words = rng.choice(wordings)
        said = [rng.choice(side.split()) for side in words]
        return choice(*asked((headings, [behind]), text, rng), said[good], [said[1 - good]], rng)

    def make(rng):
        kind = rng.random()
        if kind < 0.55:
            row = opinion(rng)
            good = row["label"] == "正面"
            if kind < 0.25:
                return judged(JUDGED, OPINIONS[0], row["text"], good, rng)
            said = rng.choice(BAD), rng.choice(GOOD)
            return choice(*asked(OPINIONS, row["text"], rng), said[good], [said[1 - good]], rng)
        if kind < 0.65:
            row = rng.choice(insults)
            return judged(INSULTS, ("", "冒犯识别：", "评论：", "这句话"), row["text"].strip(), row["label"] == "安全", rng)
        row = rng.choice(emotions)
        others = [rng.choice(words.split()) for label, words in EMOTIONS.items() if label != row["label"]]
        return choice(*asked(FEELING, row["text"].strip(), rng), rng.choice(EMOTIONS[row["label"]].split()),
                      rng.sample(others, rng.randrange(1, 6)), rng)

    return make


def which_meaning(read_rows):
    rows = {task: read_rows(task) for task in PAIRS}

    def make(rng):
        task = rng.choice(list(PAIRS))
        row = rng.choice(rows[task])
        before, between, behind, *words = rng.choice(PAIRS[task])
        said = [rng.choice(side.split()) for side in words]
        answer = said.pop(LABELS[len(said)].index(row["label"]))
        return choice(before, row["text_a"].strip() + between + row["text_b"].strip(), behind, answer, said, rng)

    return make
