package ca

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// An Account is who a caller is within the mesh: a service account of a namespace.
type Account struct{ Namespace, Name string }

// accountPrefix begins what Kubernetes calls a service account, in the subject of its tokens,
// too.
const accountPrefix = "system:serviceaccount:"

// ParseAccount reads system:serviceaccount:NAMESPACE:NAME.
func ParseAccount(user string) (Account, error) {
	rest, ok := strings.CutPrefix(user, accountPrefix)
	namespace, name, both := strings.Cut(rest, ":")
	if !ok || !both || namespace == "" || name == "" || strings.Contains(name, ":") {
		return Account{}, fmt.Errorf("%.100q is no service account", user)
	}
	return Account{namespace, name}, nil
}

// String is the account as ParseAccount reads it, "" for none.
func (a Account) String() string {
	if a == (Account{}) {
		return ""
	}
	return accountPrefix + a.Namespace + ":" + a.Name
}

// A Verifier says whose a bearer token is. An error that is ErrForeign leaves the token to
// others, one that is ErrAway is for the caller to try again.
type Verifier func(ctx context.Context, token string) (Account, error)

// Kinds of errors of a Verifier.
var (
	ErrForeign = errors.New("nobody here knows who made the token")
	ErrAway    = errors.New("who made the token cannot be asked now")
)

// An Authenticator says who calls, by the first that holds of these: a bearer token, the
// certificate of this mesh that the caller has shown. A caller that sends a token is judged by
// it alone: an account that is gone does not live on in its certificate.
type Authenticator struct {
	Authority *Authority
	Verifiers []Verifier  // asked in this order
	Join      *JoinTokens // nil: there are none
}

// Bounds of what a caller may send, and how many are seen to at once; others wait.
const (
	maxToken    = 16 << 10
	maxVerified = 64
)

// An authenticationError is why a caller is nobody, in words for the log; the caller itself
// is told nothing of it.
type authenticationError struct {
	code  codes.Code
	cause error
}

func (e *authenticationError) Error() string { return "who calls is not known: " + e.cause.Error() }

// GRPCStatus is what the caller is told.
func (e *authenticationError) GRPCStatus() *status.Status {
	if e.code == codes.Unavailable {
		return status.New(e.code, ErrAway.Error())
	}
	return status.New(e.code, "authentication failure")
}

func refused(cause error) error {
	code := codes.Unauthenticated
	if errors.Is(cause, ErrAway) || errors.Is(cause, errNotReady) {
		code = codes.Unavailable
	}
	return &authenticationError{code, cause}
}

// A caller is who calls; spend takes a credential that is good for once, and says whether it
// was there still.
type caller struct {
	Account
	spend func() bool
}

// Account says who calls, of those who may come again.
func (a *Authenticator) Account(ctx context.Context) (Account, error) {
	c, err := a.identify(ctx)
	if err == nil && c.spend != nil {
		err = refused(errors.New("a join token is for the first certificate only"))
	}
	return c.Account, err
}

func (a *Authenticator) identify(ctx context.Context) (caller, error) {
	from, ok := peer.FromContext(ctx)
	if !ok {
		return caller{}, refused(errors.New("no peer"))
	}
	secured, isTLS := from.AuthInfo.(credentials.TLSInfo)
	token, err := bearer(ctx)
	switch {
	case err != nil:
		return caller{}, refused(err)
	case token != "" && !isTLS && from.Addr.Network() != "unix":
		return caller{}, refused(errors.New("a token came in plain text"))
	case token != "":
		return a.byToken(ctx, token)
	case !isTLS || len(secured.State.PeerCertificates) == 0:
		return caller{}, refused(errors.New("neither token nor certificate"))
	}
	account, err := a.Authority.Verify(secured.State.PeerCertificates)
	if err != nil {
		return caller{}, refused(fmt.Errorf("certificate: %w", err))
	}
	return caller{Account: account}, nil
}

func (a *Authenticator) byToken(ctx context.Context, token string) (caller, error) {
	if a.Join != nil && isJoin(token) {
		account, spend, err := a.Join.redeem(token)
		if err != nil {
			return caller{}, refused(err)
		}
		return caller{account, spend}, nil
	}
	for _, verify := range a.Verifiers {
		account, err := verify(ctx, token)
		switch {
		case err == nil:
			return caller{Account: account}, nil
		case !errors.Is(err, ErrForeign):
			return caller{}, refused(err)
		}
	}
	return caller{}, refused(ErrForeign)
}

// bearer is the token of a call, "" without (RFC 6750, section 2.1).
func bearer(ctx context.Context) (string, error) {
	headers, _ := metadata.FromIncomingContext(ctx)
	switch all := headers.Get("authorization"); len(all) {
	case 0:
		return "", nil
	case 1:
		scheme, token, ok := strings.Cut(all[0], " ")
		if !ok || !strings.EqualFold(scheme, "bearer") || token == "" || len(token) > maxToken {
			return "", errors.New("the authorization is no bearer token")
		}
		return token, nil
	}
	return "", errors.New("several authorizations")
}
