package store_test

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"
	"iter"

	"github.com/conveyor-go/conveyor/store"
	"github.com/conveyor-go/conveyor/store/memory"
)

// sealed is a store on another store that encrypts the values. The keys of the records stay readable.
type sealed struct {
	store.Store
	aead cipher.AEAD
}

func newSealed(on store.Store, secret []byte) (*sealed, error) {
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return &sealed{on, aead}, err
}

// Limits leaves room for what the encryption adds to a value.
func (s *sealed) Limits() store.Limits {
	l := store.LimitsOf(s.Store)
	l.Value -= s.aead.Overhead()
	if l.Bytes > 0 {
		l.Bytes -= l.Ops * s.aead.Overhead()
	}
	return l
}

func (s *sealed) Commit(ctx context.Context, ops ...store.Op) (store.Revision, error) {
	if err := s.Limits().Check(ops); err != nil {
		return 0, err
	}
	changed := make([]store.Op, len(ops))
	for i, op := range ops {
		if changed[i] = op; !op.Writes() || op.Removes() {
			continue
		}
		changed[i] = store.Put(op.Key(), s.aead.Seal(nil, nil, op.Value(), []byte(op.Key())))
		if rev, ok := op.Condition(); ok {
			changed[i] = changed[i].If(rev)
		}
	}
	return s.Store.Commit(ctx, changed...)
}

func (s *sealed) Get(ctx context.Context, key string) (store.Record, error) {
	return s.open(s.Store.Get(ctx, key))
}

func (s *sealed) List(ctx context.Context, q store.Query) iter.Seq2[store.Record, error] {
	return func(yield func(store.Record, error) bool) {
		for rec, err := range s.Store.List(ctx, q) {
			if rec, err = s.open(rec, err); !yield(rec, err) || err != nil {
				return
			}
		}
	}
}

func (s *sealed) open(rec store.Record, err error) (store.Record, error) {
	if err != nil {
		return store.Record{}, err
	}
	if rec.Value, err = s.aead.Open(nil, nil, rec.Value, []byte(rec.Key)); err != nil {
		return store.Record{}, fmt.Errorf("%w: %q: %w", store.ErrCorrupt, rec.Key, err)
	}
	return rec, nil
}

// A store can be made of another one. This one encrypts the values with AES-GCM; an engine works on it as on any other.
func Example_sealed() {
	secret := make([]byte, 32) // comes from a secret manager
	_, _ = rand.Read(secret)
	disk := memory.New()
	s, err := newSealed(disk, secret)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	rev, _ := s.Commit(ctx, store.Put("a", []byte("secret")).IfAbsent())
	_, err = s.Commit(ctx, store.Put("a", []byte("other")).IfAbsent())
	fmt.Println(err)
	_, _ = s.Commit(ctx, store.Put("a", []byte("newer secret")).If(rev))
	rec, _ := s.Get(ctx, "a")
	fmt.Printf("%s\n", rec.Value)
	raw, _ := disk.Get(ctx, "a")
	fmt.Println(len(raw.Value) - len(rec.Value))
	// Output:
	// store: conflict: "a" has revision 1
	// newer secret
	// 28
}
