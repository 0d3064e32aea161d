package relay

import "context"

// bearer shows a token with each stream. Whether the connection is one for it is for who dials
// to say: a unix socket is.
type bearer struct{ token func() (string, error) }

// GetRequestMetadata is the header of a stream.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	if b.token == nil {
		return nil, nil
	}
	token, err := b.token()
	if token == "" || err != nil {
		return nil, err
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

// RequireTransportSecurity is false: see there.
func (b bearer) RequireTransportSecurity() bool { return false }
