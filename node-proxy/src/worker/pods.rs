//! The pods of the node as one worker knows them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use weft_core::ids::WorkloadUid;

use crate::identify::LocalWorkload;
use weft_core::ids::SandboxId;

#[derive(Debug, Default)]
struct Maps {
    by_sandbox: HashMap<SandboxId, Rc<LocalWorkload>>,
    by_uid: HashMap<WorkloadUid, Rc<LocalWorkload>>,
}

/// The pods of the node. A pod that was made anew is found by its newest sandbox.
#[derive(Debug, Default)]
pub struct Pods(RefCell<Maps>);

impl Pods {
    /// Takes a pod in.
    pub fn insert(&self, pod: LocalWorkload) -> Rc<LocalWorkload> {
        let pod = Rc::new(pod);
        let mut maps = self.0.borrow_mut();
        maps.by_uid.insert(pod.uid().clone(), Rc::clone(&pod));
        maps.by_sandbox.insert(pod.pod.sandbox.clone(), Rc::clone(&pod));
        pod
    }

    /// Forgets a pod; connections that hold it go on.
    pub fn remove(&self, sandbox: &SandboxId) -> Option<Rc<LocalWorkload>> {
        let mut maps = self.0.borrow_mut();
        let pod = maps.by_sandbox.remove(sandbox)?;
        if maps.by_uid.get(pod.uid()).is_some_and(|newest| newest.pod.sandbox == *sandbox) {
            maps.by_uid.remove(pod.uid());
        }
        Some(pod)
    }

    /// The pod of a sandbox.
    pub fn by_sandbox(&self, sandbox: &SandboxId) -> Option<Rc<LocalWorkload>> {
        self.0.borrow().by_sandbox.get(sandbox).cloned()
    }

    /// All pods.
    pub fn all(&self) -> Vec<Rc<LocalWorkload>> {
        self.0.borrow().by_sandbox.values().cloned().collect()
    }

    /// The newest pod of a workload.
    pub fn by_uid(&self, uid: &WorkloadUid) -> Option<Rc<LocalWorkload>> {
        self.0.borrow().by_uid.get(uid).cloned()
    }
}
