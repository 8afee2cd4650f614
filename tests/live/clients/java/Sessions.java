// What belongs to a connection: settings, schemas, channels, tables; and streams, cancelling and types.

import java.io.StringReader;
import java.io.StringWriter;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Timestamp;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CyclicBarrier;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;

class Sessions extends Clients {
    static void settings() throws Exception {
        together("&ApplicationName=jdbc&options=-c%20statement_timeout=61s%20-c%20myapp.region=north", (connection, number) -> {
            run(connection, "set myapp.tenant = 'tenant " + number + "'");
            run(connection, "set timezone = 'Etc/GMT+" + number % 12 + "'");
            connection.setClientInfo("ApplicationName", "jdbc " + number);
            for (int turn = 0; turn < 5; turn++) {
                same("tenant " + number, value(connection, "select current_setting('myapp.tenant')"));
                same("north", value(connection, "select current_setting('myapp.region')"));
                same("61s", value(connection, "show statement_timeout"));
                same("Etc/GMT+" + number % 12, value(connection, "show timezone"));
                same("jdbc " + number, value(connection, "show application_name"));
            }
            connection.setAutoCommit(false);
            run(connection, "set myapp.tenant = 'undone'");
            connection.rollback();
            same("tenant " + number, value(connection, "show myapp.tenant"));
            connection.commit();
            connection.setAutoCommit(true);
            run(connection, "reset statement_timeout");
            same("61s", value(connection, "show statement_timeout"));
        });
    }

    static void schemas() throws Exception {
        try (Connection connection = connect("")) {
            for (int number = 0; number < CLIENTS; number++)
                run(connection, "create schema of" + number + "; create table of" + number + ".key as select " + number + " as n");
        }
        together("", (connection, number) -> {
            try (PreparedStatement statement = connection.prepareStatement("select n from key where n = ?")) {
                for (int turn = 0; turn < 4; turn++) {
                    int whose = (number + turn) % CLIENTS;
                    connection.setSchema("of" + whose);
                    same("of" + whose, connection.getSchema());
                    for (int again = 0; again < 3; again++) same(whose, value(statement, whose));
                }
            }
        });
        try (Connection connection = connect("&currentSchema=of7")) {
            same(7, value(connection, "select n from key"));
        }
    }

    static void listening() throws Exception {
        CyclicBarrier ready = new CyclicBarrier(CLIENTS);
        together("", (connection, number) -> {
            run(connection, "listen own" + number);
            run(connection, "listen news");
            ready.await();
            value(connection, "select pg_notify(?, ?)::text", "own" + (number + 1) % CLIENTS, "from " + number);
            if (number == 0) run(connection, "notify news");
            List<String> heard = new ArrayList<>();
            for (int turn = 0; turn < 20 && heard.size() < 2; turn++) {
                PGNotification[] found = connection.unwrap(PGConnection.class).getNotifications(500);
                for (PGNotification each : found == null ? new PGNotification[0] : found)
                    heard.add(each.getName() + " " + each.getParameter());
            }
            heard.sort(null);
            same(List.of("news ", "own" + number + " from " + (number + CLIENTS - 1) % CLIENTS), heard);
        });
    }

    static void temporary() throws Exception {
        together("", (connection, number) -> {
            run(connection, "create temp table mine (n int)");
            try (PreparedStatement insert = connection.prepareStatement("insert into mine values (?)")) {
                for (int n = 0; n < 10; n++) add1(insert, number);
                insert.executeBatch();
            }
            same(number * 10, value(connection, "select sum(n) from mine"));
            value(connection, "select pg_advisory_lock(?)::text", 99L);
            same(true, value(connection, "select pg_advisory_unlock(?)", 99L));
            run(connection, "drop table mine");
            same(number, value(connection, "select ?::int", number));
        });
    }

    static void add1(PreparedStatement insert, int n) throws SQLException {
        insert.setInt(1, n);
        insert.addBatch();
    }

    // Streams, cancelling, types.

    static void copy() throws Exception {
        try (Connection connection = connect("")) {
            run(connection, "create table bale (client int, t text)");
        }
        together("", (connection, number) -> {
            var copies = connection.unwrap(PGConnection.class).getCopyAPI();
            String lines = (number + "\trow\n").repeat(500);
            same(500, copies.copyIn("copy bale from stdin", new StringReader(lines)));
            StringWriter out = new StringWriter();
            same(500, copies.copyOut("copy (select * from bale where client = " + number + ") to stdout", out));
            same(lines, out);
            fails("22P04", () -> copies.copyIn("copy bale from stdin", new StringReader("1\t2\t3\n")));
            same(number, value(connection, "select ?::int", number));
        });
    }

    static void cancelling() throws Exception {
        together("", (connection, number) -> {
            if (number % 5 == 0) {
                try (Statement statement = connection.createStatement()) {
                    Thread timer = new Thread(() -> {
                        try {
                            Thread.sleep(200);
                            statement.cancel();
                        } catch (Exception error) {
                            throw new AssertionError(error);
                        }
                    });
                    timer.start();
                    fails("57014", () -> statement.execute("select pg_sleep(30)"));
                    timer.join();
                    statement.setQueryTimeout(1);
                    fails("57014", () -> statement.execute("select pg_sleep(30)"));
                }
            }
            for (int turn = 0; turn < 5; turn++) same(number, value(connection, "select ?::int", number));
        });
    }

    static void types() throws Exception {
        together("&stringtype=unspecified", (connection, number) -> {
            Timestamp when = Timestamp.valueOf("2024-02-29 12:34:56.789");
            Integer[] list = {1, null, number};
            for (int turn = 0; turn < 4; turn++) {
                same(when, value(connection, "select ?::timestamp", when));
                same("{1,NULL," + number + "}", value(connection, "select ?::int[]::text", connection.createArrayOf("int4", list)));
                same("{\"n\": " + number + "}", value(connection, "select ?::jsonb::text", "{\"n\": " + number + "}"));
            }
            try (ResultSet tables = connection.getMetaData().getTables(null, "pg_catalog", "pg_class", null)) {
                same(true, tables.next());
            }
            same(true, connection.isValid(5));
        });
    }
}
