// Package outside is the way between the namespaces of the mesh and those of this
// machine. Whoever stands outside opens sockets and hands them in by descriptor: a
// socket stays in the network it was made in, whoever holds it.
//
//	supervisor ◄── socketpair ──► node ◄── socket at a path ──► proxies in pods
//	  Serve          Client          Door
//
// Two protocols, both of SOCK_SEQPACKET Unix sockets, one message a packet.
//
// # Socket at a path: what proxies ask
//
// A proxy in a pod connects to the path it was given (--dial-socket, --publish-socket:
// it may be the same path) with a SOCK_SEQPACKET socket and sends requests. A request
// is one packet of at most 512 bytes of text, words separated by one space, no newline:
//
//	dial tcp 93.184.216.34:443    a connected TCP socket
//	dial udp [2001:db8::1]:53     a connected UDP socket
//	listen tcp 8080               the listening socket of this machine behind port 8080 of the pod
//	inside                        the address ranges that a pod reaches by itself
//
// Addresses are IP addresses with a port, never names. Each request is answered by one
// packet, in the order of the requests on that connection:
//
//	ok                            done: one descriptor is attached (SCM_RIGHTS), none for inside
//	ok 0.0.0.0:8080               the same, with words for who wants them: of listen the address
//	                              on this machine, of dial nothing, of inside the ranges
//	err 111 connection refused    failed: the errno (decimal, Linux) and a text for people
//
// Requests of one connection are served one after another; who wants several dials at
// once opens several connections (a proxy holds 128 at most, more are not accepted
// before others end). Closing the connection gives up the request that is under way.
// The descriptors are non-blocking and outlive the connection.
//
// dial is for what is not inside: the answer to inside is `ok 10.96.0.0/16 …`, prefixes
// separated by a space, the same for as long as the mesh runs; addresses in one of them
// and loopback are dialled by the pod itself (asking for them is answered by errno 18,
// EXDEV). The errno of a dial is that of the connection as this machine makes it: 111
// refused, 113 no route, 101 network unreachable, 110 timed out. A dial takes 10 seconds
// at most; a shorter limit is the asker's, by closing the connection.
//
// listen is answered for ports that the pod publishes (hostPort, or a Service that is
// published), else with errno 2, ENOENT: then the proxy serves its own socket only. Once
// the descriptor is handed out nothing else accepts from it, so the proxy accepts from
// it beside its own socket and sees the clients' true addresses. Where it closes
// the socket the port refuses connections; who asks again gets a new one for the same
// port. While the old one is open that may fail with errno 98, EADDRINUSE.
//
// The socket is 0600; as root its group is 1337 and its mode 0660, for proxies that run
// as uid 1337. The caller's uid is checked, and its network namespace, in which it made
// its socket, says which pod it is; elsewhere the connection is closed unanswered.
//
// # Socketpair: what the node asks
//
// The same words after a number that the answer repeats, so that many are under way:
//
//	7 dial tcp 93.184.216.34:443  ►  7 ok + descriptor, 7 err 111 connection refused
//	8 listen tcp 80               ►  8 ok 0.0.0.0:8080 + descriptor; 80+8000 where 80 is not to be had
//	9 query udp <DNS message>     ►  9 ok <DNS message>: names are looked up where this machine does
//	7 cancel                      ►  nothing; 7 itself is answered, mostly with errno 125
//
// A Resolver answers the same questions by DNS on loopback, for a gateway that is a process of
// this machine.
package outside
