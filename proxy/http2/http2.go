// Package http2 is the HTTP/2 codec, both sides.
//
// A Server is a downstream connection: it reads frames, and each request becomes a
// ServerStream that a goroutine of its own serves. A Client is an upstream connection:
// Open gives a ClientStream for one request and its answer. Both are the same link
// beneath: frames are parsed where the socket put them, bodies are copied once, into
// pooled memory, and credit goes back to the peer when they are consumed, so that a
// stream nobody reads stops itself and no other, and a connection never holds more than
// its windows. Header blocks are x/net's hpack; frames are read and written here, because
// x/net's Framer allocates one value for each frame and copies each payload twice (it is
// the peer of the tests instead).
//
// What is sent is appended to the connection's buffer under its lock. Flush makes sure
// that somebody writes: a goroutine that lets the others add their frames first, and
// ends when the buffer is empty. Nobody who serves a stream is blocked by the socket,
// only by windows and by the bound of that buffer; waits end by deadlines, Interrupt
// and the end of stream or connection.
//
// What is accepted, refused and bounded, and how, is what Envoy 1.40 does.
package http2

import (
	"time"

	"golang.org/x/net/http2"
)

// A Code is an HTTP/2 error code, RFC 9113 §7.
type Code = http2.ErrCode

// The codes that callers use.
const (
	CodeNo              = http2.ErrCodeNo
	CodeProtocol        = http2.ErrCodeProtocol
	CodeConnect         = http2.ErrCodeConnect
	CodeInternal        = http2.ErrCodeInternal
	CodeRefusedStream   = http2.ErrCodeRefusedStream
	CodeCancel          = http2.ErrCodeCancel
	CodeEnhanceYourCalm = http2.ErrCodeEnhanceYourCalm
)

// Preface is what a client sends before its first frame.
const Preface = http2.ClientPreface

// Options are the settings of either end of a connection. The zero value is Envoy's
// default, a negative number 0.
type Options struct {
	MaxConcurrentStreams    uint32 // of the peer's making (Client: of ours, beside the peer's word); 0: 1024
	InitialStreamWindow     uint32 // bytes; 0: 16 MiB
	InitialConnectionWindow uint32 // bytes; 0: 24 MiB
	HeaderTable             int    // hpack_table_size, bytes; 0: 4096
	MaxHeadBytes            int    // of a head or of trailers, names and values; 0: 60 KiB
	MaxHeaders              int    // fields of a head or of trailers; 0: 100
	AllowConnect            bool   // extended CONNECT (RFC 8441)
	// Lenient resets the stream of a malformed message; otherwise the connection ends
	// (override_stream_error_on_invalid_http_message).
	Lenient bool

	MaxOutboundFrames        int // waiting to be written; 0: 10000
	MaxOutboundControlFrames int // of those PING, SETTINGS, RST_STREAM; 0: 1000
	MaxEmptyFrames           int // inbound in a row, without payload or end; 0: 1
	MaxPriorityFrames        int // inbound for each stream opened; 0: 100
	MaxWindowUpdates         int // inbound for each DATA frame sent; 0: 10

	// A connection that is silent for KeepAlive is asked by PING, and ended when the answer
	// is not there after KeepAliveTimeout; 0: never. KeepAliveJitter is the per cent by
	// which the interval is lengthened at random, IdleKeepAlive the silence before a first
	// PING that is sent when an exchange begins; 0: none.
	KeepAlive, KeepAliveTimeout time.Duration
	KeepAliveJitter             float64
	IdleKeepAlive               time.Duration

	Stats *Stats // nil: nothing is counted
}

// ServerOptions are the settings of a Server.
type ServerOptions struct {
	Options
	// A client that resets PrematureResetMinStreams streams or more within their first
	// PrematureResetTime, and these are half of its streams or more, loses its connection
	// (CVE-2023-44487; Envoy's overload.premature_reset_*). 0: 500 and 1 s; a negative number
	// of streams is no bound.
	PrematureResetMinStreams int
	PrematureResetTime       time.Duration
}

// ClientOptions are the settings of a Client.
type ClientOptions struct {
	Options
}
