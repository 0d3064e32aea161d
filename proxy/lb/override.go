package lb

import (
	"bytes"
	"sync"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
)

// A Request tells what a request says of itself.
type Request interface {
	// Header is the first value of a header, nil for none.
	Header(name string) []byte
	// Metadata is the text at a path of the dynamic metadata, nil for none.
	Metadata(namespace string, path []string) []byte
}

// A Source is where a request may name endpoints: a header, or else its metadata.
type Source struct {
	Header    string // lower case
	Namespace string
	Path      []string
}

// NewOverride returns a Balancer that goes to the addresses which the request names, one
// after the other, those that are no endpoint of the list left out; without any, or when
// all have been tried, it goes where otherwise does. Health does not matter: whoever names
// an address is to know.
func NewOverride(sources []Source, otherwise Balancer, list []*endpoint.Endpoint) Balancer {
	return &override{sources: sources, Balancer: otherwise, list: list}
}

type override struct {
	Balancer
	sources []Source
	list    []*endpoint.Endpoint

	once sync.Once
	by   map[string]*endpoint.Endpoint
}

// named are the addresses that a request has named and that have not been tried.
type named struct {
	asked bool
	rest  []byte
}

// Pick implements Balancer.
func (o *override) Pick(x *Context) *endpoint.Endpoint {
	if e := o.next(x); e != nil {
		return e
	}
	return o.Balancer.Pick(x)
}

func (o *override) pickIn(x *Context, priority int, degraded bool) *endpoint.Endpoint {
	if e := o.next(x); e != nil {
		return e
	}
	return o.Balancer.pickIn(x, priority, degraded)
}

// next is the first endpoint that is named and left.
func (o *override) next(x *Context) *endpoint.Endpoint {
	if x.Request == nil {
		return nil
	}
	o.once.Do(o.index)
	if !x.named.asked {
		x.named = named{true, o.find(x.Request)}
	}
	for len(x.named.rest) > 0 {
		var address []byte
		address, x.named.rest, _ = bytes.Cut(x.named.rest, []byte(","))
		if e := o.by[string(bytes.TrimSpace(address))]; e != nil {
			x.Priority = int(e.Priority.Load())
			return e
		}
	}
	return nil
}

// find is the list of the first source that says something.
func (o *override) find(r Request) []byte {
	for _, s := range o.sources {
		v := r.Header(s.Header)
		if s.Header == "" {
			v = r.Metadata(s.Namespace, s.Path)
		}
		if len(v) > 0 {
			return v
		}
	}
	return nil
}

func (o *override) index() {
	o.by = make(map[string]*endpoint.Endpoint, len(o.list))
	for _, e := range o.list {
		o.by[e.Address] = e
	}
}
