package ca

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/lateen-mesh/lateen/spiffe"
	"github.com/lateen-mesh/lateen/wellknown"
)

// Bounds of join tokens.
const (
	maxJoinLife = 24 * time.Hour
	maxJoins    = 10_000
	joinSecret  = 32 // bytes
	joinUnknown = "the join token was used, has ended, or was never made here"
)

// JoinTokens are tokens by which machines get their first certificate, each once; they renew it
// with the certificate itself. They are known to this process only, and as hashes: none of
// them is good any more after a restart. The methods may be called from any goroutine.
type JoinTokens struct {
	now func() time.Time

	mu  sync.Mutex
	all map[[sha256.Size]byte]join
}

type join struct {
	account Account
	until   time.Time
}

// NewJoinTokens returns a table without tokens. now is the clock, time.Now if nil.
func NewJoinTokens(now func() time.Time) *JoinTokens {
	if now == nil {
		now = time.Now
	}
	return &JoinTokens{now: now, all: map[[sha256.Size]byte]join{}}
}

// Make returns a new token for an account, which is good once and for a while of at most 24 h.
func (j *JoinTokens) Make(account Account, life time.Duration) (string, error) {
	if err := (spiffe.ID{TrustDomain: "any", Namespace: account.Namespace, ServiceAccount: account.Name}).Validate(); err != nil {
		return "", err
	}
	if life <= 0 || life > maxJoinLife {
		return "", fmt.Errorf("a join token is good for at most %s, not %s", maxJoinLife, life)
	}
	secret := make([]byte, joinSecret)
	if _, err := rand.Read(secret); err != nil {
		return "", err
	}
	token := wellknown.JoinTokenPrefix + base64.RawURLEncoding.EncodeToString(secret)
	j.mu.Lock()
	defer j.mu.Unlock()
	now := j.now()
	for key, one := range j.all {
		if !now.Before(one.until) {
			delete(j.all, key)
		}
	}
	if len(j.all) >= maxJoins {
		return "", fmt.Errorf("there are %d join tokens that nobody has used", maxJoins)
	}
	j.all[sha256.Sum256([]byte(token))] = join{account, now.Add(life)}
	return token, nil
}

func isJoin(token string) bool { return strings.HasPrefix(token, wellknown.JoinTokenPrefix) }

// redeem says whose a token is. Who then spends it is the first to do so, or is told that
// somebody else was.
func (j *JoinTokens) redeem(token string) (Account, func() bool, error) {
	key := sha256.Sum256([]byte(token))
	j.mu.Lock()
	defer j.mu.Unlock()
	one, ok := j.all[key]
	if !ok || !j.now().Before(one.until) {
		return Account{}, nil, errors.New(joinUnknown)
	}
	return one.account, func() bool {
		j.mu.Lock()
		defer j.mu.Unlock()
		_, there := j.all[key]
		delete(j.all, key)
		return there
	}, nil
}
