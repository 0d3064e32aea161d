// Package explain tells what a proxy would do with a request, and why: the listener that
// takes the connection, the filter chain, the virtual host, each route that does not match
// with the condition that it fails on, the route that does, the cluster and its endpoints,
// and of each rule the object and field that it comes from.
//
// There is one decision engine. What is asked here is a [proxy.Model], which compiles xDS
// with the decoders of the running proxy and sends the request through the same listener
// match, connection manager, filters and router; only that no upstream is asked at the end.
// So what is explained cannot differ from what is done.
//
// The xDS comes from the control plane's own generators, out of objects ([Mesh]: those of
// files, or of a mesh that runs), or from what a proxy says that it has ([FromDump]).
//
//	m, err := explain.NewMesh(objects, nil)
//	w, err := m.Find("productpage-v1", "default")
//	x, err := m.Explain(ctx, w, explain.Request{Method: "GET", URL: "http://reviews:9080/"})
//	err = x.Write(os.Stdout)
//
// The same models are the [Checker]: what a proxy would refuse of generated xDS, before it
// is sent.
//
// What is left to chance or time (faults, weights, the endpoint of several) is told with its
// shares. What only a living proxy knows (health by checks and outliers, circuit breakers,
// rate limits, addresses of names outside of the mesh) is not known here: endpoints are as
// the control plane gives them.
//
// All types can be used by several goroutines at once.
package explain

// A Request is what a program asks for.
type Request struct {
	Method, URL string
	// Headers are "Name: value" each; Host takes the place of the URL's host.
	Headers []string
	// Address is where the name of the URL's host leads, where the mesh does not know it.
	Address string
}

// An Explanation is the way of one request.
type Explanation struct {
	From   string `json:"from"` // "pod.namespace"
	Method string `json:"method"`
	URL    string `json:"url"`
	Hops   []Hop  `json:"hops"`
	// Verdict is the outcome in a sentence.
	Verdict string `json:"verdict"`
}

// A Hop is what one proxy decides.
type Hop struct {
	Proxy       string `json:"proxy"`
	Direction   string `json:"direction"` // outbound, inbound, gateway
	Destination string `json:"destination"`
	// Because says where Destination comes from.
	Because  string  `json:"because,omitempty"`
	Listener string  `json:"listener,omitempty"`
	Chains   []Step  `json:"filterChains,omitempty"`
	Table    string  `json:"routeConfiguration,omitempty"`
	Host     string  `json:"virtualHost,omitempty"`
	HostWhy  string  `json:"virtualHostReason,omitempty"`
	Routes   []Step  `json:"routes,omitempty"`
	Action   *Action `json:"action,omitempty"`
	// Access are policies that bear on it: the one that decided, those that would have had to.
	Access []Step `json:"access,omitempty"`
	// Clusters are those that the request, or connection, may go to.
	Clusters []Cluster `json:"clusters,omitempty"`
	// Status, Details and Location are of an answer of the proxy itself; Status 0: the
	// request goes on.
	Status   int      `json:"status,omitempty"`
	Details  string   `json:"details,omitempty"`
	Location string   `json:"location,omitempty"`
	Notes    []string `json:"notes,omitempty"`
}

// A Step is one rule that was tried.
type Step struct {
	Name    string  `json:"name,omitempty"`
	Matched bool    `json:"matched"`
	Reason  string  `json:"reason"`
	Origin  *Origin `json:"origin,omitempty"`
}

// An Origin is the object that a rule comes from.
type Origin struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	Field     string `json:"field,omitempty"`
	// Place is "file:line" where it is known.
	Place string `json:"place,omitempty"`
}

// An Action is what the route says, in words.
type Action struct {
	Kind     string   `json:"kind"` // forward, redirect, direct response
	Settings []string `json:"settings,omitempty"`
}

// A Cluster is one destination.
type Cluster struct {
	Name    string  `json:"name"`
	Share   float64 `json:"share"` // of the requests, in percent
	Missing bool    `json:"missing,omitempty"`
	Origin  *Origin `json:"origin,omitempty"`
	// Settings are those that bear on the request.
	Settings  []string   `json:"settings,omitempty"`
	Endpoints []Endpoint `json:"endpoints,omitempty"`
}

// An Endpoint is one address of a cluster.
type Endpoint struct {
	Address  string `json:"address"`
	Health   string `json:"health"` // healthy, degraded, unhealthy
	Priority uint32 `json:"priority"`
	Weight   uint32 `json:"weight"`
	Locality string `json:"locality,omitempty"`
	Workload string `json:"workload,omitempty"` // "pod.namespace" where it is one of the mesh
}
