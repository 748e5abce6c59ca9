//! Requests of Kafka's protocol that librdkafka does not have.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::base::error::{Error, Result};

const TIMEOUT: Duration = Duration::from_secs(20);
/// The API key of AlterPartitionReassignments (KIP-455). Any broker passes it on to the controller.
const ALTER_PARTITION_REASSIGNMENTS: i16 = 45;

/// Gives partitions other replicas; the first one of each is its preferred leader. The brokers copy what the new ones lack,
/// and this does not wait for it.
///
/// # Errors
/// [`Error::Failed`] if the broker does not answer, or refuses a partition.
pub(super) fn reassign(broker: &str, topic: &str, replicas: &[(i32, Vec<i32>)]) -> Result<()> {
    let failed = |what: String| Error::failed(format!("the drill's own move of replicas of {topic}: {what}"));
    let answer = exchange(broker, &request(topic, replicas)).map_err(|e| failed(e.to_string()))?;
    match errors(&answer) {
        Some(codes) if codes.iter().all(|code| *code == 0) => Ok(()),
        codes => Err(failed(format!("the broker answers {codes:?}"))),
    }
}

/// Version 0, with a header of version 2.
fn request(topic: &str, replicas: &[(i32, Vec<i32>)]) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend(ALTER_PARTITION_REASSIGNMENTS.to_be_bytes());
    // The version, the number of this request, and a client without a name and without tags.
    out.extend([0, 0, 0, 0, 0, 1, 0xff, 0xff, 0]);
    out.extend(20_000_i32.to_be_bytes());
    // In compact arrays and strings, a number is one more than the length.
    length(&mut out, 1);
    length(&mut out, topic.len());
    out.extend(topic.bytes());
    length(&mut out, replicas.len());
    for (partition, replicas) in replicas {
        out.extend(partition.to_be_bytes());
        length(&mut out, replicas.len());
        replicas.iter().for_each(|replica| out.extend(replica.to_be_bytes()));
        out.push(0);
    }
    out.extend([0, 0]);
    out
}

fn length(out: &mut Vec<u8>, length: usize) {
    let mut left = length + 1;
    while left >= 0x80 {
        out.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

fn exchange(broker: &str, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let address = broker.to_socket_addrs()?.next().ok_or(std::io::ErrorKind::NotFound)?;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let size = u32::try_from(request.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&size.to_be_bytes()[..], request].concat())?;
    let mut size = [0; 4];
    stream.read_exact(&mut size)?;
    let mut answer = vec![0; u32::from_be_bytes(size) as usize];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

/// The error codes of an answer of version 0: the one for all, and one for each partition. `None` if it is something else.
fn errors(answer: &[u8]) -> Option<Vec<i16>> {
    // The request's number, no tags, and how long a quota delayed the answer.
    let mut rest = answer.get(4 + 1 + 4..)?;
    let mut codes = vec![code(&mut rest)?];
    text(&mut rest)?;
    for _ in 0..number(&mut rest)?.saturating_sub(1) {
        text(&mut rest)?;
        for _ in 0..number(&mut rest)?.saturating_sub(1) {
            take(&mut rest, 4)?;
            codes.push(code(&mut rest)?);
            text(&mut rest)?;
            take(&mut rest, 1)?;
        }
        take(&mut rest, 1)?;
    }
    Some(codes)
}

fn take<'b>(rest: &mut &'b [u8], count: usize) -> Option<&'b [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

fn code(rest: &mut &[u8]) -> Option<i16> {
    take(rest, 2)?.try_into().ok().map(i16::from_be_bytes)
}

fn number(rest: &mut &[u8]) -> Option<usize> {
    let mut number = 0;
    for shift in [0, 7, 14, 21] {
        let byte = usize::from(*take(rest, 1)?.first()?);
        number |= (byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// A string that may be null.
fn text<'b>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    let length = number(rest)?.saturating_sub(1);
    take(rest, length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_and_read() {
        for wanted in [0, 1, 126, 127, 128, 20_000] {
            let mut out = Vec::new();
            length(&mut out, wanted);
            assert_eq!(number(&mut &out[..]), Some(wanted + 1));
        }
    }

    #[test]
    fn the_errors_of_an_answer_are_read() {
        // One topic `ab` with the partitions 0 and 1; the second one is refused with a message.
        let begin = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        let topic = [2, 3, b'a', b'b', 3, 0, 0, 0, 0, 0, 0, 0, 0];
        let refused = [0, 0, 0, 1, 0, 39, 3, b'n', b'o', 0, 0, 0];
        let answer = [&begin[..], &topic, &refused].concat();
        assert_eq!(errors(&answer), Some(vec![0, 0, 39]));
        assert_eq!(errors(&answer[..20]), None);
    }
}
