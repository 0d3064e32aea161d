// Package xds is the data plane's ADS client: it subscribes to resources, has each
// decoded by its owner, and answers ACK or NACK.
//
// One stream carries all types, in the state-of-the-world or the delta form. New makes
// the client, Run keeps the stream open until its context ends; Subscribe and
// SubscribeAll may be called before, during and from within callbacks. All callbacks
// run on one goroutine, one after the other, so an owner sees its updates in order; a
// callback must not block.
//
// A response is taken apart resource by resource: what its owner accepts is in force at
// once, what it refuses stays as it was, and the NACK names every refused resource.
// After a lost connection the client returns with jittered back-off and says what it
// has; until then everything in force stays.
package xds

import (
	"time"

	"google.golang.org/protobuf/types/known/anypb"
)

// A Type is one kind of resource and how its owner turns it into a compiled object.
type Type[T any] struct {
	URL string
	// Decode compiles one resource. Its error refuses the resource; the text is what
	// the control plane sees after "name: ".
	Decode func(name string, body *anypb.Any) (T, error)
	// FetchTimeout is initial_fetch_timeout: when the resource has not arrived so long
	// after it was subscribed to, update is called with present false. 0: wait for ever.
	FetchTimeout time.Duration
	// Settled, for SubscribeAll, keeps back the ACK of a response until the channel that it
	// returns after update is closed, for settleTime at most; nil: no ACK waits. So Envoy
	// does with clusters: their ACK says that routes to them may come. Ours does it with
	// listeners, too: who waits for a generation then finds them serving.
	Settled func() <-chan struct{}
}

// settleTime is many times what a management server at hand needs to complete what it
// has sent.
const settleTime = 2 * time.Second

// Changes are what one response brought for a wildcard subscription.
type Changes[T any] struct {
	Updated []Resource[T] // in the order of the response
	Removed []string
}

// A Resource is a decoded resource as it came.
type Resource[T any] struct {
	Name    string
	Version string
	Value   T
	Body    *anypb.Any
}
