package ir

// An Assignment is the endpoints of one cluster, by locality.
type Assignment struct {
	Cluster    string
	Localities []LocalityEndpoints
}

// A Locality is where endpoints run.
type Locality struct{ Region, Zone, SubZone string }

// LocalityEndpoints are the endpoints of one locality at one priority.
type LocalityEndpoints struct {
	Locality  *Locality // nil where the cluster knows no localities
	Priority  uint32    // 0 is tried first
	Weight    uint32    // among the localities of its priority; 0 for none given
	Endpoints []Endpoint
}

// An Endpoint is one address.
type Endpoint struct {
	Address  string // IP, host name, or the path of a unix domain socket
	Port     uint32 // 0 for a path
	Weight   uint32
	Draining bool
	// TLSMode is what the endpoint's proxy takes ("istio"), "" for plain text.
	TLSMode string
	// Workload is "name;namespace;canonical name;canonical revision;cluster".
	Workload string
}
