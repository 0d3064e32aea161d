package ir

// UpstreamTLS is how a cluster's connections are encrypted.
type UpstreamTLS struct {
	SNI  string // "" for none, or by UpstreamHTTP.AutoSNI
	ALPN []string
	// Certificate is what the proxy shows, nil for nothing.
	Certificate *SecretRef
	// CA is what the server's certificate is checked against; nil checks nothing.
	CA         *SecretRef
	SANs       []string // one of these must be in the server's certificate; empty: any
	CRL        string   // file
	MinVersion string   // "TLSv1_2"
	MaxVersion string
	Ciphers    []string
	Curves     []string
	// Mesh marks TLS between proxies of the mesh.
	Mesh bool
}
