// SPDX-License-Identifier: MPL-2.0

package portkey

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/helper/locksutil"
	"github.com/hashicorp/vault/sdk/logical"
)

const (
	// leasedPrefix holds the leased keys of this cluster by their hash: a lease
	// is its cluster's, so they aren't replicated.
	leasedPrefix = localPrefix + "creds/"
	// A leased key is leasedMark and 256 random bits in base64url (RFC 4648 §5)
	// without padding: 46 characters.
	leasedMark = "vk-"
	leasedBits = 256
	// cachedLeasedKeys stay decoded in memory: about 4 MB.
	cachedLeasedKeys = 8192
)

// leasedKey is what is known of a leased key: not the key. A stored one is never
// changed in place.
type leasedKey struct {
	// Hash is the SHA-256 of the key's text in hexadecimal.
	Hash string `json:"hash"`
	// Role is the virtual key's name, and RoleID its id: see belongsTo.
	Role   string `json:"role"`
	RoleID string `json:"role_id"`
	// EntityID and DisplayName say who took the lease. Both may be empty.
	EntityID    string    `json:"entity_id,omitempty"`
	DisplayName string    `json:"display_name,omitempty"`
	IssuedAt    time.Time `json:"issued_at"`
	// Expires is the first moment at which the key isn't valid any more.
	Expires time.Time `json:"expires"`
	// TTL is what was asked for, by which a renewal without an increment
	// extends; 0 for the mount's default.
	TTL time.Duration `json:"ttl,omitempty"`
}

func (k *leasedKey) prepare() error {
	if len(k.Hash) != 2*sha256.Size || k.RoleID == "" || k.Expires.IsZero() {
		return fmt.Errorf("hash, role_id or expires is missing")
	}
	return nil
}

// belongsTo says whether r is the virtual key that k was leased on, and not a
// later one of the same name. r is nil when there is none.
func (k *leasedKey) belongsTo(r *role) bool { return r != nil && k.RoleID == r.ID }

func (k *leasedKey) expired(now time.Time) bool { return !now.Before(k.Expires) }

// hashLeasedKey returns the hash by which a leased key is stored, and false for
// a text that is no leased key.
//
// A key is found by this hash, and never compared itself. Looking a hash up
// isn't constant time, and needn't be: at most, time tells a guesser how the
// hash of the guess resembles another one, from which no better guess follows.
func hashLeasedKey(credential string) (string, bool) {
	text, marked := strings.CutPrefix(credential, leasedMark)
	if !marked || len(text) != base64.RawURLEncoding.EncodedLen(leasedBits/8) {
		return "", false
	}
	// The decoder skips line breaks; the number of bytes tells.
	var raw [leasedBits / 8]byte
	if n, err := base64.RawURLEncoding.Strict().Decode(raw[:], []byte(text)); err != nil || n != len(raw) {
		return "", false
	}
	sum := sha256.Sum256([]byte(credential))
	return hex.EncodeToString(sum[:]), true
}

// leasedKeys keeps the leased keys of a mount. Once revoke was called for a key,
// find doesn't return it any more in this process, whatever storage does. It is
// safe for concurrent use.
type leasedKeys struct {
	entries *entryStore[leasedKey]
	locks   []*locksutil.LockEntry // one writer of a key at a time
	random  io.Reader

	mu sync.Mutex
	// revoked are those that storage may still hold: empty while it works.
	revoked map[string]bool
	// reading are those that are being looked up in storage.
	reading map[string]*leasedRead
	pruned  string // the hash up to which prune has come
}

// leasedRead is what lookups of one key have in common while they are at
// storage.
type leasedRead struct {
	lookups int
	revoked bool // meanwhile
}

func newLeasedKeys() (*leasedKeys, error) {
	entries, err := newEntryStore(leasedPrefix, cachedLeasedKeys, (*leasedKey).prepare)
	return &leasedKeys{
		entries: entries, locks: locksutil.CreateLocks(), random: rand.Reader,
		revoked: map[string]bool{}, reading: map[string]*leasedRead{},
	}, err
}

// generate returns a new key and its hash.
func (l *leasedKeys) generate() (key, hash string, err error) {
	var raw [leasedBits / 8]byte
	if _, err := io.ReadFull(l.random, raw[:]); err != nil {
		return "", "", fmt.Errorf("making a key: %w", err)
	}
	key = leasedMark + base64.RawURLEncoding.EncodeToString(raw[:])
	hash, _ = hashLeasedKey(key)
	return key, hash, nil
}

// find returns the key with this hash, expired or not, and nil for one that is
// unknown or revoked. Unknown ones are not remembered: guesses would push out
// those that are used.
func (l *leasedKeys) find(ctx context.Context, storage logical.Storage, hash string) (*leasedKey, error) {
	if k, cached := l.entries.cache.Get(hash); cached {
		return k, nil
	}
	// Changes are counted from before the look at what is revoked. Thus, of a
	// revocation that this look misses, fill hears.
	before := l.entries.seen()
	read := l.beginRead(hash)
	if read == nil {
		return nil, nil
	}
	k, err := l.entries.read(ctx, storage, hash)
	if k != nil {
		l.entries.fill(hash, k, before)
	}
	if revoked := l.endRead(hash, read); revoked {
		return nil, nil
	}
	return k, err
}

// beginRead counts a lookup in, and returns nil if the key is revoked.
func (l *leasedKeys) beginRead(hash string) *leasedRead {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.revoked[hash] {
		return nil
	}
	read := l.reading[hash]
	if read == nil {
		read = &leasedRead{}
		l.reading[hash] = read
	}
	read.lookups++
	return read
}

// endRead counts the lookup out, and says whether the key was revoked
// meanwhile.
func (l *leasedKeys) endRead(hash string, read *leasedRead) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if read.lookups--; read.lookups == 0 {
		delete(l.reading, hash)
	}
	return read.revoked
}

// change stores what f makes of the key with this hash, which is nil if there is
// none. After an error, f's or storage's, the key is as it was, unless storage
// lost its answer.
func (l *leasedKeys) change(ctx context.Context, storage logical.Storage, hash string, f func(*leasedKey) (*leasedKey, error)) error {
	lock := locksutil.LockForKey(l.locks, hash)
	lock.Lock()
	defer lock.Unlock()
	k, err := l.find(ctx, storage, hash)
	if err != nil {
		return err
	}
	if k, err = f(k); err != nil {
		return err
	}
	return l.entries.put(ctx, storage, hash, k)
}

// revoke makes the key invalid at once, and for as long as this process lives,
// and then deletes it from storage. After an error it may still be there, and be
// valid again in the next process: revoke has to be called again.
func (l *leasedKeys) revoke(ctx context.Context, storage logical.Storage, hash string) error {
	l.mu.Lock()
	l.revoked[hash] = true
	if read := l.reading[hash]; read != nil {
		read.revoked = true
	}
	l.mu.Unlock()
	l.entries.forget(hash)
	return l.remove(ctx, storage, hash)
}

// remove deletes the key from storage, behind a change that is under way.
func (l *leasedKeys) remove(ctx context.Context, storage logical.Storage, hash string) error {
	lock := locksutil.LockForKey(l.locks, hash)
	lock.Lock()
	defer lock.Unlock()
	if err := l.entries.delete(ctx, storage, hash); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.revoked, hash)
	return nil
}

// knownLeasedKey is leasedKey for those that are in memory: storage isn't asked.
func (b *backend) knownLeasedKey(credential string) *leasedKey {
	hash, ok := hashLeasedKey(credential)
	if !ok {
		return nil
	}
	k, _ := b.leased.entries.cache.Get(hash)
	if k == nil || k.expired(b.now()) {
		return nil
	}
	return k
}

// leasedKey returns the leased key that credential is: nil for one that is
// unknown, expired or revoked, and for what is no leased key, of which storage
// isn't asked. An error is storage's. The virtual key may have changed since:
// see belongsTo.
func (b *backend) leasedKey(ctx context.Context, storage logical.Storage, credential string) (*leasedKey, error) {
	hash, ok := hashLeasedKey(credential)
	if !ok {
		return nil, nil
	}
	k, err := b.leased.find(ctx, storage, hash)
	if err != nil || k == nil || k.expired(b.now()) {
		return nil, err
	}
	return k, nil
}
