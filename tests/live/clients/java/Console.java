// JDBC at the admin console, with each of its ways to speak: `java Console PORT USER`, and a failure is the exit code.

import java.math.BigDecimal;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Properties;

public class Console {
    public static void main(String[] place) throws Exception {
        for (String mode : new String[] {"extended", "simple", "extendedForPrepared", "extendedCacheEverything"})
            for (boolean commits : new boolean[] {true, false}) talk(place, mode, commits);
    }

    static void talk(String[] place, String mode, boolean commits) throws Exception {
        Properties wishes = new Properties();
        wishes.setProperty("user", place[1]);
        wishes.setProperty("ApplicationName", "grafana");
        wishes.setProperty("preferQueryMode", mode);
        wishes.setProperty("prepareThreshold", "1");
        String url = "jdbc:postgresql://127.0.0.1:" + place[0] + "/pgbouncer?socketTimeout=20";
        try (Connection connection = DriverManager.getConnection(url, wishes)) {
            connection.setAutoCommit(commits);
            same(true, connection.isValid(5));
            look(connection, commits ? 0 : 10);
            if (!commits) connection.commit();
            try (Statement statement = connection.createStatement()) {
                same(false, statement.execute("SET verbose = 0"));
                statement.executeQuery("SHOW NONSENSE");
                throw new AssertionError("nonsense was shown");
            } catch (SQLException error) {
                same("42601", error.getSQLState());
            }
            if (!commits) connection.rollback();
        }
    }

    static void look(Connection connection, int rows) throws SQLException {
        try (PreparedStatement statement = connection.prepareStatement("SHOW CONFIG")) {
            statement.setFetchSize(rows);
            for (int turn = 0; turn < 3; turn++) {
                int count = 0;
                try (ResultSet found = statement.executeQuery()) {
                    while (found.next()) count++;
                }
                same(true, count > 100);
            }
        }
        try (Statement statement = connection.createStatement(); ResultSet found = statement.executeQuery("SHOW TOTALS")) {
            found.next();
            same("total_server_assignment_count", found.getString("name"));
            same(BigDecimal.class, found.getObject("value").getClass());
        }
        try (Statement statement = connection.createStatement(); ResultSet found = statement.executeQuery("SHOW CLIENTS")) {
            found.next();
            same(Integer.class, found.getObject("port").getClass());
        }
    }

    static void same(Object expected, Object found) {
        if (!String.valueOf(expected).equals(String.valueOf(found)))
            throw new AssertionError("expected " + expected + ", found " + found);
    }
}
