package cluster

import "github.com/lateen-mesh/lateen/proxy/endpoint"

// localEndpoints are the endpoints of the proxies' own cluster, by which c routes near
// the proxy; none for that cluster itself, and where there is no such cluster.
func (cs *Clusters) localEndpoints(c *Cluster) []*endpoint.Endpoint {
	if cs.opts.Local == "" || c.Name() == cs.opts.Local {
		return nil
	}
	if local := cs.Get(cs.opts.Local); local != nil {
		return local.Endpoints()
	}
	return nil
}

// localChanged has all clusters choose by what the proxies' own cluster is now.
func (cs *Clusters) localChanged(c *Cluster) {
	if cs.opts.Local == "" || c.Name() != cs.opts.Local {
		return
	}
	for _, other := range cs.all() {
		if other != c {
			other.mu.Lock()
			other.rebuild()
			other.mu.Unlock()
		}
	}
}
