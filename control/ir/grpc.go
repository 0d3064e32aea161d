package ir

// A GRPCListener is what a gRPC program that speaks xDS itself asks for in place of a
// Listener: a name that it calls, or a socket of its own on which it is called.
type GRPCListener struct {
	Name      string // as it was asked for
	RouteName string // of the name that it calls; "" for a socket
	Address   string // of the socket, without brackets
	Port      uint32 // of the socket

	Strict bool           // the socket takes mutual TLS only
	Access []AccessFilter // who may call; rules alone
}
