//! Fixed words of the page: headings, buttons, fields, messages without a slot.

use crate::text::Lang;

macro_rules! labels {
    ($($name:ident: $en:literal, $ja:literal;)*) => {
        /// A fixed text of the page.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[allow(missing_docs, reason = "each is named by what it says, see the table")]
        pub enum Label { $($name),* }

        impl Label {
            /// All of them.
            pub const ALL: &'static [Label] = &[$(Label::$name),*];
        }

        /// A fixed text in a language.
        #[must_use]
        pub fn label(lang: Lang, label: Label) -> &'static str {
            match (label, lang) {
                $((Label::$name, Lang::En) => $en, (Label::$name, Lang::Ja) => $ja,)*
            }
        }
    };
}

labels! {
    Overview: "Overview", "概要";
    Live: "Live", "受信中";
    NotLive: "Not live", "受信停止";
    Theme: "Colours", "配色";
    ThemeLight: "Light", "明るい";
    ThemeDark: "Dark", "暗い";
    Language: "Language", "言語";
    SignOut: "Sign out", "ログアウト";
    Pages: "Pages", "ページ";
    SkipToContent: "Skip to the verdict", "判定へ移動";
    Picture: "Servers, groups and mirrors", "サーバ・グループ・ミラー";
    PublicLan: "Public LAN", "パブリックLAN";
    Links: "Links", "経路";
    Primary: "primary", "主";
    Blocks: "mirror connect", "ミラーコネクト";
    Witness: "Witness", "ウィットネス";
    ThirdVote: "third vote", "第三の票";
    NoVote: "answers, no vote yet", "応答あり・投票不可";
    WitnessAway: "No answer", "応答なし";
    NoWitness: "No witness", "ウィットネスなし";
    Cpu: "CPU", "CPU";
    Memory: "Memory", "メモリ";
    NoReadings: "No readings", "測定値なし";
    ClientsUse: "Clients use", "接続先";
    Disk: "Disk", "ディスク";
    HereSince: "Here since", "活性開始";
    FailedOver: "failed over", "フェイルオーバー";
    Copy: "Copy", "複製";
    CopyEqual: "equal", "一致";
    CopyRebuilding: "rebuilding", "構築中";
    CopyAway: "server away", "サーバ不在";
    CopyUnknown: "unknown", "不明";
    CopyNone: "nothing to copy", "複製なし";
    WouldTake: "Would take", "切替予測";
    Home: "Home", "ホーム";
    HomeYes: "yes", "はい";
    Reason: "Reason", "理由";
    Steps: "Steps", "処理";
    Actions: "Actions", "操作";
    NoActions: "No action is possible at present.", "現在可能な操作はありません。";
    Events: "Events", "イベント";
    NoEvents: "Nothing has happened yet.", "イベントはありません。";
    Incident: "Incident", "障害";
    UntilServed: "until clients were served", "業務再開まで";
    Rebuilding: "Rebuilding", "ミラー構築中";
    Measuring: "measuring", "測定中";
    Speed: "Speed", "速度";
    ToTwin: "to the other server", "もう一方のサーバへ";
    WhatToDo: "What to do", "対処";
    ProtectedAgain: "Protected again", "保護の再開";
    AfterRebuild: "after the rebuild, nothing to do now", "ミラー構築後。操作は不要です";
    WhenMeasured: "time not known yet", "時間は未測定";
    Cancel: "Cancel", "キャンセル";
    Close: "Close", "閉じる";
    Dismiss: "Dismiss", "閉じる";
    Asked: "Asked, waiting for the answer", "要求中、応答待ち";
    AnswerLost: "The connection broke before the answer. Look at the state, then order it again if needed.", "応答前に接続が切れました。状態を確認し、必要なら再度実行してください。";
    NoEffect: "It was begun, but the state did not change. Look at the events.", "開始されましたが状態が変わっていません。イベントを確認してください。";
    NotNowStale: "Not now: this page has no contact with its server. Possible when it is live again.", "現在は実行できません: サーバと通信できません。受信の再開後に実行できます。";
    LoginTitle: "Sign in", "ログイン";
    LoginHelp: "Use the one-time password that the server printed. Another one: futago login --data DIR on the server, as root.", "サーバに表示されたワンタイムパスワードを入力してください。再発行: サーバ上で root により futago login --data DIR。";
    Password: "Password", "パスワード";
    LoginButton: "Sign in", "ログイン";
    LoginPending: "Signing in", "ログイン中";
    LoginWrong: "That password is not known, or was used already. Ask for a new one on the server.", "パスワードが正しくないか、使用済みです。サーバで再発行してください。";
    LoginCookie: "The browser did not keep the session. Allow cookies for this address, over https.", "ブラウザがセッションを保存できません。このアドレスの Cookie を https で許可してください。";
    LoginSlow: "Too many attempts. Wait a minute, then try again.", "試行回数が多すぎます。1分待ってからやり直してください。";
    LoginEmpty: "Type the password first.", "パスワードを入力してください。";
    NoClusterTitle: "There is no cluster yet", "クラスタはまだありません";
    NoClusterIntro: "Two servers become twins from the command line of the first one. This page shows the cluster as soon as it exists.", "クラスタは1台目のサーバのコマンドで生成します。生成後、このページに表示されます。";
    NoClusterFirst: "On the second server and on the witness, read the pairing code: futago code --data DIR", "2台目のサーバとウィットネスでペアリングコードを確認: futago code --data DIR";
    NoClusterThen: "On the first server, create the cluster with those codes: futago cluster create --data DIR", "1台目のサーバでそのコードを使ってクラスタを生成: futago cluster create --data DIR";
    PairingCode: "Pairing code of this server", "このサーバのペアリングコード";
    PairingUse: "It can be used once. Whoever has it can make this server a twin: give it to nobody else.", "一度だけ使用できます。第三者に渡さないでください。";
    Connecting: "Connecting to the server", "サーバに接続中";
    ConnectingDetail: "Nothing has been received yet.", "まだ情報を受信していません。";
    Demo: "Demo", "デモ";
    DemoHelp: "Both servers are real processes on this machine. Break something and watch.", "2台のサーバはこのマシン上の実プロセスです。障害を起こして動作を確認できます。";
    DemoServers: "Servers", "サーバ";
    DemoAsked: "Asked", "要求中";
    ErrorUnreachable: "The server does not answer.", "サーバが応答しません。";
    ErrorOther: "The server could not do that.", "サーバで処理できませんでした。";
    KeysHelp: "Groups: arrow keys select, M moves, Enter opens, Esc closes.", "グループ: 矢印キーで選択、M で移動、Enter で詳細、Esc で閉じる。";
    NotFoundTitle: "There is no such page", "ページがありません";
    ToOverview: "To the overview", "概要へ";
}
