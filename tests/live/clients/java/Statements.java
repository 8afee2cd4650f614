// Statements that the driver prepares: their values, batches, parts, savepoints, and tables that change.

import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.util.Arrays;
import java.util.List;

class Statements extends Clients {
    static void ownValues() throws Exception {
        together("", (connection, number) -> {
            try (PreparedStatement same = connection.prepareStatement("select ?::int * 1000 + ?::int");
                    PreparedStatement mine = connection.prepareStatement("select " + number + " + ?::int")) {
                for (int turn = 0; turn < 20; turn++) {
                    same(number * 1000 + turn, value(same, number, turn));
                    same(number + turn, value(mine, turn));
                    fails("22012", () -> value(connection, "select 1 / ?::int", 0));
                }
            }
            for (int turn = 0; turn < 300; turn++) // more than the driver keeps
                same(number + turn, value(connection, "select ?::int + " + turn, number));
        });
    }

    static void transactions() throws Exception {
        try (Connection connection = connect("")) {
            run(connection, "create table ledger (client int, n int)");
        }
        together("", (connection, number) -> {
            connection.setAutoCommit(false);
            String put = "insert into ledger values (?, ?)";
            try (PreparedStatement insert = connection.prepareStatement(put)) {
                for (int turn = 0; turn < 10; turn++) {
                    insert.setInt(1, number);
                    insert.setInt(2, turn);
                    insert.executeUpdate();
                    if (turn % 2 == 0) connection.commit(); else connection.rollback();
                }
            }
            same(20, value(connection, "select sum(n) from ledger where client = ?", number));
            Savepoint savepoint = connection.setSavepoint();
            fails("42P01", () -> value(connection, "select * from nowhere"));
            fails("25P02", () -> value(connection, "select 1"));
            connection.rollback(savepoint);
            same(number, value(connection, "select ?::int", number));
            connection.commit();
            connection.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
            connection.setReadOnly(true);
            for (int turn = 0; turn < 3; turn++) {
                same("serializable", value(connection, "show transaction_isolation"));
                same("on", value(connection, "show transaction_read_only"));
                connection.commit();
            }
            same(Connection.TRANSACTION_SERIALIZABLE, connection.getTransactionIsolation());
        });
    }

    static void batches() throws Exception {
        batch("");
    }

    static void rewrittenBatches() throws Exception {
        batch("&reWriteBatchedInserts=true");
    }

    static void batch(String options) throws Exception {
        String table = options.isEmpty() ? "plain" : "rewritten";
        try (Connection connection = connect("")) {
            run(connection, "create table " + table + " (id serial, client int, n int check (n < 1000))");
        }
        together(options, (connection, number) -> {
            String put = "insert into " + table + " (client, n) values (?, ?)";
            try (PreparedStatement insert = connection.prepareStatement(put, Statement.RETURN_GENERATED_KEYS)) {
                for (int n = 0; n < 300; n++) add(insert, number, n);
                same(300, insert.executeBatch().length);
                int keys = 0;
                try (ResultSet rows = insert.getGeneratedKeys()) {
                    while (rows.next()) keys++;
                }
                same(300, keys);
            }
            connection.setAutoCommit(false);
            try (PreparedStatement insert = connection.prepareStatement(put)) {
                for (int n = 990; n < 1010; n++) add(insert, number, n);
                try {
                    insert.executeBatch();
                    throw new AssertionError("no error in the batch");
                } catch (BatchUpdateException error) {
                    same("23514", error.getSQLState());
                }
            }
            connection.rollback();
            same(300, value(connection, "select count(*) from " + table + " where client = ?", number));
            connection.commit();
            try (Statement mixed = connection.createStatement()) {
                mixed.addBatch("set local myapp.tenant = 'x'");
                mixed.addBatch("insert into " + table + " (client, n) values (" + number + ", 1)");
                mixed.addBatch("delete from " + table + " where client = " + number);
                same("[0, 1, 301]", Arrays.toString(mixed.executeBatch()));
            }
            connection.commit();
        });
    }

    static void add(PreparedStatement insert, int client, int n) throws SQLException {
        insert.setInt(1, client);
        insert.setInt(2, n);
        insert.addBatch();
    }

    static void fetchSize() throws Exception {
        together("", (connection, number) -> {
            connection.setAutoCommit(false);
            String text = "select ? * 1000 + n from generate_series(1, 200) n";
            try (PreparedStatement statement = connection.prepareStatement(text);
                    PreparedStatement other = connection.prepareStatement("select ?::int")) {
                statement.setFetchSize(9);
                for (int turn = 0; turn < 3; turn++) {
                    statement.setInt(1, number);
                    int n = 0;
                    try (ResultSet rows = statement.executeQuery()) {
                        while (rows.next()) {
                            same(number * 1000 + ++n, rows.getInt(1));
                            if (n % 50 == 0) same(n, value(other, n));
                        }
                    }
                    same(200, n);
                    connection.commit();
                }
            }
        });
    }

    static void autosave() throws Exception {
        for (String mode : List.of("conservative", "always"))
            together("&autosave=" + mode, (connection, number) -> {
                connection.setAutoCommit(false);
                String table = "saved_" + mode + number;
                run(connection, "create table " + table + " as select " + number + " as a");
                connection.commit();
                try (PreparedStatement all = connection.prepareStatement("select * from " + table)) {
                    for (int turn = 0; turn < 3; turn++) same(number, value(all));
                    connection.commit();
                    run(connection, "alter table " + table + " add column b int");
                    same(number, value(all)); // the driver goes back to its savepoint and prepares anew
                    connection.commit();
                    if (mode.equals("always")) fails("42P01", () -> value(connection, "select * from nowhere"));
                    same(number, value(all));
                    connection.commit();
                }
                run(connection, "drop table " + table);
                connection.commit();
            });
    }

    static void columnAdded() throws Exception {
        try (Connection early = connect(""); Connection other = connect("")) {
            run(other, "create table tower as select 1 as a");
            try (PreparedStatement old = early.prepareStatement("select * from tower")) {
                for (int turn = 0; turn < 3; turn++) same(1, old.executeQuery().getMetaData().getColumnCount());
                together("", (connection, number) -> same(1, value(connection, "select * from tower")));
                run(other, "alter table tower add column b int default 2");
                together("", (connection, number) -> {
                    try (PreparedStatement fresh = connection.prepareStatement("select * from tower")) {
                        for (int turn = 0; turn < 3; turn++) same(2, fresh.executeQuery().getMetaData().getColumnCount());
                    }
                });
                same(2, old.executeQuery().getMetaData().getColumnCount()); // outside a transaction the driver tries again
            }
        }
    }

    static void deallocate() throws Exception {
        together("", (connection, number) -> {
            try (PreparedStatement statement = connection.prepareStatement("select ?::int")) {
                for (String words : List.of("deallocate all", "discard all")) {
                    for (int turn = 0; turn < 3; turn++) same(number, value(statement, number));
                    run(connection, words);
                    for (int turn = 0; turn < 3; turn++) same(number, value(statement, number));
                }
            }
            run(connection, "prepare mine (int) as select $1 + " + number);
            same(number + 1, value(connection, "execute mine(1)"));
            run(connection, "deallocate mine");
            fails("26000", () -> run(connection, "execute mine(1)"));
        });
    }
}
