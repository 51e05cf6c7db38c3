use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket},
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client};

use super::*;
use crate::{
    outbox::{
        Outbox,
        tests::{drain, limits},
    },
    refusal::Refusal,
};

/// A TLS connection: our end and the peer's.
async fn pair() -> (Socket, client::TlsStream<TcpStream>) {
    let certificate = CertificateDer::from_pem_slice(include_bytes!("tests/certificate.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("tests/key.pem")).unwrap();
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let server = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let server = server.with_single_cert(vec![certificate.clone()], key).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let client = builder.unwrap().with_root_certificates(roots).with_no_client_auth();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = async {
        let stream = listener.accept().await.unwrap().0;
        // Small, so that much ciphertext is pending.
        rustix::net::sockopt::set_socket_send_buffer_size(&stream, 4096).unwrap();
        TlsAcceptor::from(Arc::new(server)).accept(stream).await.unwrap()
    };
    let connecting = async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let stream = socket.connect(address).await.unwrap();
        let connector = TlsConnector::from(Arc::new(client));
        connector.connect("localhost".try_into().unwrap(), stream).await.unwrap()
    };
    let (accepted, connected) = tokio::join!(accepting, connecting);
    (accepted.into(), connected)
}

#[tokio::test]
async fn an_outbox_writes_through_tls_and_what_waits_is_neither_lost_nor_repeated() {
    let (socket, mut peer) = pair().await;
    let socket = Arc::new(socket);
    let outbox = Outbox::new(&limits(64 << 20, Duration::from_secs(60)));
    outbox.attach(socket.clone());
    let mut expected = Vec::new();
    let mut frames = 0_u8;
    // Frames of all sizes until the socket is full, and some more that are queued.
    while !outbox.is_stalled() || frames.is_multiple_of(7) {
        frames = frames.wrapping_add(1);
        let frame = Bytes::from(vec![frames; usize::from(frames) * 700 + 1]);
        expected.extend_from_slice(&frame);
        outbox.send(&frame).unwrap();
    }
    // Large, so that its ciphertext is not accepted all at once.
    let farewell = Bytes::from(vec![9; 60_000]);
    expected.extend_from_slice(&farewell);
    outbox.end(Refusal::gone(), Some(farewell));
    let mut read = Vec::new();
    let (_, count) = tokio::join!(drain(&outbox, &socket), peer.read_to_end(&mut read));
    count.unwrap();
    assert!(read == expected, "{} of {} bytes", read.len(), expected.len());
}

#[tokio::test]
async fn plain_bytes_that_a_read_leaves_are_ready_at_once() {
    let (socket, mut peer) = pair().await;
    peer.write_all(&[7; 10_000]).await.unwrap();
    peer.flush().await.unwrap();
    let (mut read, mut buffer) = (0, [0; 100]);
    while read < 10_000 {
        socket.readable().await.unwrap();
        match socket.try_read(&mut buffer) {
            Ok(count) => read += count,
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
    }
    peer.shutdown().await.unwrap();
    loop {
        socket.readable().await.unwrap();
        match socket.try_read(&mut buffer) {
            Ok(count) => return assert_eq!(count, 0),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
    }
}
