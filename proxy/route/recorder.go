package route

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
	Index       int    // position in the virtual host
	Route       string // its name, "" when it has none
	Matched     bool
	Reason      string // what did not match; what matched for the rule that was taken
}

func (r *Recorder) step(vh *VirtualHost, i int, rt *Route, matched bool, reason string) {
	r.Steps = append(r.Steps, Step{VirtualHost: vh.Name, Index: i, Route: rt.Name, Matched: matched, Reason: reason})
}
