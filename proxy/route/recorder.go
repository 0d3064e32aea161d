package route

import "fmt"

// A Recorder gathers why a decision fell as it did. The running proxy hands nil,
// which costs one check for each rule; explanations and configuration tests hand
// one in and read it afterwards. Not safe for concurrent use.
type Recorder struct {
	// Host says which domain the authority met, or that none did.
	Host string
	// Steps are the rules of the virtual host in the order in which they were tried.
	Steps []Step
}

// A Step is one rule that was tried.
type Step struct {
	VirtualHost string
	Index       int    // position in the virtual host, -1 for its TLS requirement
	Route       string // its name, "" when it has none
	Matched     bool
	Reason      string // what did not match; what matched for the rule that was taken
}

// String is one line of an explanation: `route[2] "v1": no, path prefix "/api" on "/"`.
func (s Step) String() string {
	verdict := "no"
	if s.Matched {
		verdict = "yes"
	}
	return fmt.Sprintf("route[%d] %q: %s, %s", s.Index, s.Route, verdict, s.Reason)
}

// domain notes by which domain vh was found and returns vh.
func (r *Recorder) domain(vh *VirtualHost, before string, host []byte, after string) *VirtualHost {
	if r != nil {
		r.Host = before + string(host) + after
	}
	return vh
}
