package postgres_test

import (
	"context"
	"log"
	"os"

	"github.com/jackc/pgx/v5"

	"github.com/conveyor-go/conveyor"
	"github.com/conveyor-go/conveyor/store/postgres"
)

// Every process of a program opens the store like this, and has an engine of its own on it. The tables are made once, by
// an administrator or by the deployment, with Migrate or with what MigrationSQL prints.
func ExampleOpen() {
	ctx := context.Background()
	st, err := postgres.Open(ctx, os.Getenv("DATABASE_URL"), postgres.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer st.Close()
	engine, err := conveyor.New(st, conveyor.Options{Name: "builder-1"})
	if err != nil {
		log.Fatal(err)
	}
	// Register drivers and save pipelines here, as with any other store.
	if err := engine.Start(ctx); err != nil {
		log.Fatal(err)
	}
	if err := engine.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
}

// An order and the build that it needs are written together, or not at all. An engine with Options.Letters applies the build.
func ExampleEnqueue() {
	ctx := context.Background()
	db, err := pgx.Connect(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close(ctx)
	build := &conveyor.Object{Meta: conveyor.Meta{Type: "build", Name: "order-17", Pipeline: "ci"}}
	err = pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "insert into orders (number) values (17)"); err != nil {
			return err
		}
		_, err := postgres.Enqueue(conveyor.As(ctx, "shop"), tx, build, postgres.EnqueueOptions{})
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
}

// An administrator reads the SQL, and runs it with psql.
func ExampleMigrationSQL() {
	sql, err := postgres.MigrationSQL(postgres.Options{Schema: "builds"})
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile("conveyor.sql", []byte(sql), 0o600); err != nil {
		log.Fatal(err)
	}
}

// What Health returns goes into the metrics of the program.
func ExampleStore_Health() {
	ctx := context.Background()
	st, err := postgres.Open(ctx, os.Getenv("DATABASE_URL"), postgres.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer st.Close()
	health, err := st.Health(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, table := range health.Tables {
		log.Printf("%s: %d rows, %d dead, %d bytes", table.Name, table.Live, table.Dead, table.Bytes)
	}
	log.Printf("oldest snapshot %v, oldest row of the log %v", health.OldestSnapshot, health.LogAge)
}
