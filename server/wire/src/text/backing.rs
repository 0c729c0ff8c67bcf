//! Why a disk is not taken, and what to do about it (C2).

use crate::backing::BackingFault;
use crate::text::event::event_number;
use crate::text::number::bytes;
use crate::text::{Lang, say};

/// A disk's fault in one sentence with its remedy and number.
#[must_use]
pub fn backing_fault(lang: Lang, path: &str, fault: &BackingFault) -> String {
    let sentence = sentence(lang, path, fault);
    format!("{sentence} {}", event_number(fault.code()))
}

fn sentence(lang: Lang, path: &str, fault: &BackingFault) -> String {
    match fault {
        BackingFault::Missing => say!(
            lang,
            "There is no {path}: name a disk, a partition, or an image file in a folder that exists.",
            "{path} がありません。ディスク、パーティション、または既存のフォルダ内のイメージファイルを指定してください。"
        ),
        BackingFault::NotADisk => say!(
            lang,
            "{path} is neither a block device nor a file: name a disk, a partition or an image file.",
            "{path} はブロックデバイスでもファイルでもありません。ディスク、パーティション、イメージファイルを指定してください。"
        ),
        BackingFault::Unreadable { reason } => say!(
            lang,
            "{path} cannot be looked at ({reason}): see to the disk first.",
            "{path} を確認できません ({reason})。先にディスクを確認してください。"
        ),
        BackingFault::Root => say!(
            lang,
            "{path} is on the disk of the root file system: choose another disk.",
            "{path} はルートファイルシステムのディスク上にあります。別のディスクを選んでください。"
        ),
        BackingFault::Mounted { point } => say!(
            lang,
            "{path} is mounted at {point}: unmount it first.",
            "{path} は {point} にマウントされています。先にアンマウントしてください。"
        ),
        BackingFault::Swap => say!(
            lang,
            "{path} is swap space in use: end that with swapoff first.",
            "{path} は使用中のスワップ領域です。先に swapoff を実行してください。"
        ),
        BackingFault::Removable => say!(
            lang,
            "{path} is a removable disk: choose one that is built in.",
            "{path} はリムーバブルディスクです。内蔵ディスクを選んでください。"
        ),
        BackingFault::ReadOnly => {
            say!(
                lang,
                "{path} is read-only: choose another disk.",
                "{path} は読み取り専用です。別のディスクを選んでください。"
            )
        }
        BackingFault::Lvm => say!(
            lang,
            "{path} belongs to LVM: name a logical volume instead, or remove it from LVM with pvremove first.",
            "{path} は LVM に属しています。論理ボリュームを指定するか、先に pvremove を実行してください。"
        ),
        BackingFault::Raid => say!(
            lang,
            "{path} is a member of an array: name the array itself, or take it out of the array first.",
            "{path} はアレイの構成ディスクです。アレイ自体を指定するか、先にアレイから外してください。"
        ),
        BackingFault::Held { by } => say!(
            lang,
            "{path} is held by {by}: name that device instead, or let it go first.",
            "{path} は {by} が使用しています。そのデバイスを指定するか、先に解放してください。"
        ),
        BackingFault::InUse => say!(
            lang,
            "{path} is in use by another program: end that first.",
            "{path} は他のプログラムが使用しています。先に終了してください。"
        ),
        BackingFault::OtherSet { set, side } => {
            let (set, side) = (set.0, side.0);
            say!(
                lang,
                "{path} carries the copy of mirror set {set} of server {side}: release it there first, or confirm that it is lost.",
                "{path} にはミラーセット {set} (サーバ {side}) の複製があります。先に解除するか、失われることを確認してください。"
            )
        }
        BackingFault::Released { set, side } => {
            let (set, side) = (set.0, side.0);
            say!(
                lang,
                "{path} carries the data of mirror set {set} of server {side}, which was released: confirm that it is taken (on the source server the data stays, on the other it is overwritten).",
                "{path} には解除されたミラーセット {set} (サーバ {side}) のデータがあります。使用する場合は確認してください (コピー元のデータは残り、コピー先は上書きされます)。"
            )
        }
        BackingFault::Carries { what } => say!(
            lang,
            "{path} carries data ({what}): all of it is lost, confirm that first.",
            "{path} にはデータがあります ({what})。すべて失われます。先に確認してください。"
        ),
        BackingFault::TooSmall { needed, found } => {
            let (needed, found) = (bytes(*needed), bytes(*found));
            say!(
                lang,
                "{path} has {found}, and {needed} are needed: choose a larger disk or a smaller set.",
                "{path} は {found} で、{needed} が必要です。より大きいディスクか小さいサイズを選んでください。"
            )
        }
        BackingFault::Changed => say!(
            lang,
            "The size or partition table of {path} changed since it was registered: put it back, or release the set and register it anew.",
            "{path} のサイズまたはパーティションテーブルが登録後に変更されています。元に戻すか、ミラーセットを解除して再登録してください。"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{NodeId, SetId};

    #[test]
    fn every_fault_has_its_own_number_and_a_sentence_in_both_languages() {
        let text = || "x".to_string();
        let faults = [
            BackingFault::Missing,
            BackingFault::NotADisk,
            BackingFault::Unreadable { reason: text() },
            BackingFault::Root,
            BackingFault::Mounted { point: text() },
            BackingFault::Swap,
            BackingFault::Removable,
            BackingFault::ReadOnly,
            BackingFault::Lvm,
            BackingFault::Raid,
            BackingFault::Held { by: text() },
            BackingFault::InUse,
            BackingFault::OtherSet { set: SetId(3), side: NodeId(1) },
            BackingFault::Carries { what: text() },
            BackingFault::TooSmall { needed: 3 << 20, found: 1 << 20 },
            BackingFault::Changed,
            BackingFault::Released { set: SetId(3), side: NodeId(1) },
        ];
        let mut numbers: Vec<u16> = faults.iter().map(BackingFault::code).collect();
        numbers.dedup();
        assert_eq!(numbers, (3201..=3217).collect::<Vec<u16>>());
        for fault in &faults {
            let (en, ja) =
                (backing_fault(Lang::En, "/dev/sdb", fault), backing_fault(Lang::Ja, "/dev/sdb", fault));
            assert!(
                en.contains("/dev/sdb")
                    && ja.contains("/dev/sdb")
                    && en.ends_with(&format!("M-{}", fault.code()))
            );
            assert!(en.is_ascii() || en.contains('\u{a0}'), "{en}");
            assert!(ja.contains('。') && !ja.contains('{'), "{ja}");
        }
        assert_eq!(faults.iter().filter(|fault| fault.is_confirmable()).count(), 3);
    }
}
