//! What ends a follow is loud.

use super::*;

#[test]
fn a_fill_does_not_replace_the_positions_of_a_follow() {
    let stream = Stream::new(1, 3, 3);
    let (records, before) = story(&stream, 3);
    let follower = stream.follow(&[]);
    follower.until_says("following");
    follower.stopped();
    for options in [&["--scale-out"][..], &[]] {
        let mut fill = stream.command(&["--window", "11:00-13:00", "--output", "json"]);
        let fill = fill.args(options).output().expect("runs");
        assert_eq!(code(&fill), 3, "{}", stderr(&fill));
        assert_eq!(receipt(&fill)["error"]["reason"], "followed");
    }
    stream.assert_holds(&before, &from_eleven(&records));
}
