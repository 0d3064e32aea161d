package http

import (
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// A Verdict is what a filter says of the stream after one phase.
type Verdict uint8

// The verdicts.
const (
	Continue Verdict = iota // go on with the next filter
	Replied                 // the stream is answered: Stream.Reply or a replaced Response
	Again                   // the request as it is now begins anew: it is routed, and all filters run
)

// A Slot is the place of a filter in its chain; state and per-route configuration
// of a filter are found by it.
type Slot int

// A Filter is shared by all streams of its chain; what it must remember of one
// stream it keeps in the slot that the chain gave it. OnRequest runs in chain order
// and may answer the stream itself; OnResponse runs in reverse, and for a local reply
// it runs for every filter of the chain, also those whose OnRequest has not run (as
// in Envoy). Either may block and may wrap the body.
type Filter interface {
	OnRequest(*Stream, Slot) Verdict
	OnResponse(*Stream, Slot) Verdict
}

// An Ender is told once that the stream is over, also after a reset.
type Ender interface{ OnEnd(*Stream, Slot) }

// Facts are what policies look at.
type Facts struct {
	// Info are the facts of the stream or, without HTTP, of the connection.
	Info *streaminfo.Info
	// Request is nil without HTTP: what asks for headers or a path then misses.
	Request *Request
	// Route is the matched route, whose metadata policies may ask for; nil for none.
	Route RouteConfig
}

// A Reviewer is a Filter that is asked again about streams that are still open when its
// configuration has changed, or when it has come to a chain.
type Reviewer interface {
	// Review reports whether a stream that is under way may go on and, if not, what a request
	// like it is answered. f is the request as it was when the last Reviewer of its own chain, or
	// without one the terminal filter, was about to run; it is not changed. override is as in
	// Stream.Override, by the routes of now. Any goroutine may call it.
	Review(f Facts, override any) (denial Reply, ok bool)
}

// A Runner is a Filter that has work to do beside its streams.
type Runner interface {
	// Run begins the work, which ends when stop is closed; streams may use the filter also
	// after that. It returns at once. The channel is closed when the filter may take traffic,
	// nil: it may now.
	Run(stop <-chan struct{}) (warm <-chan struct{})
}

// A Factory builds filters from configuration, once per listener or route.
type Factory struct {
	Name     string   // canonical filter name, "envoy.filters.http.fault"
	TypeURLs []string // with a TypedStruct the inner type URL
	New      func(cfg *anypb.Any, env Env) (Filter, error)
	// Override compiles a typed_per_filter_config entry; nil: not allowed.
	Override func(cfg *anypb.Any, env Env) (any, error)
	Terminal bool
}

// A Reply is an answer that the proxy gives by itself.
type Reply struct {
	Status  int
	Body    []byte
	Details string          // RESPONSE_CODE_DETAILS
	Flag    streaminfo.Flag // 0: none
	// Prepend are headers placed before content-length and content-type (Envoy puts
	// x-envoy-overloaded there), nil for none.
	Prepend []Field
	// GRPCStatus is the grpc-status for application/grpc requests; -1 derives it from Status.
	GRPCStatus int
	// Close ends the connection after the answer.
	Close bool
}

// A Stream is one request with its response on its way through the filters. It is
// owned by one goroutine.
type Stream struct {
	Request  Request
	Response Response
	Info     streaminfo.Info

	core // chain bookkeeping, kept by the connection manager through the methods of core
}
