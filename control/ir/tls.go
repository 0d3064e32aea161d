package ir

// UpstreamTLS is how a cluster's connections are encrypted.
type UpstreamTLS struct {
	SNI  string // "" for none, or by UpstreamHTTP.AutoSNI
	ALPN []string
	// Certificate is what the proxy shows: a secret, or files that it reads itself;
	// nil for nothing.
	Certificate      *SecretRef
	CertificateFiles *CertificateFiles
	// CA is what the server's certificate is checked against: a secret, or a file
	// that the proxy reads itself; neither checks nothing.
	CA         *SecretRef
	CAFile     string
	SANs       []string // one of these must be in the server's certificate; empty: any
	CRL        string   // file
	MinVersion string   // "TLSv1_2"
	MaxVersion string
	Ciphers    []string
	Curves     []string
	// Mesh marks TLS between proxies of the mesh.
	Mesh bool
}

// CertificateFiles are the names of PEM files on the proxy's machine.
type CertificateFiles struct{ Certificate, Key string }
