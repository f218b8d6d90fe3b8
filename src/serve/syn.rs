use crate::clock::Clock;
use crate::log::Reader;
use crate::serve::dx::Folder;
pub struct Syn;
impl Syn {
    #[allow(clippy::new_ret_no_self)]
    pub fn new(_r: Reader, _c: Clock, _u: String) -> Folder {
        Folder::new("a.b".parse().unwrap(), "/nonexistent")
    }
}
